"""Pairs on the unit circle, given by angles, for values that can be computed by hand."""

import torch
from torch import Tensor, nn

from polyqwen.losses.types import Pairs


def unit(degrees: list[float]) -> Tensor:
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def pairs(query: list[float], document: list[float], score: list[float] | None = None) -> Pairs:
    """Plane unit vectors by their angles, all contents different."""
    rows = len(query)
    key = torch.arange(2 * rows)
    score_tensor = None if score is None else torch.tensor(score, dtype=torch.float64)
    return Pairs(unit(query), unit(document), key[:rows], key[rows:], score_tensor)


def give(p: Pairs, negative: list[float], row: list[int]) -> Pairs:
    key = 1000 + torch.arange(len(row))
    return p._replace(negative=unit(negative), negative_key=key, negative_row=torch.tensor(row))


def seeded(seed: int, rows: int = 6) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    angles = 360 * torch.rand(2, rows, generator=generator)
    return pairs(*angles.tolist(), torch.rand(rows, generator=generator).tolist())


def value(loss: nn.Module, p: Pairs) -> float:
    return loss(p).total.item()
