"""Any loss at several widths of the same embedding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyqwen.losses import checks
from polyqwen.losses.similarity import at_least_float32
from polyqwen.losses.types import LossOutput, Pairs

EPSILON = 1e-6  # shorter beginnings of an embedding have no direction worth a gradient

OWN = ("loss", "dims", "weights", "training")  # never the inner loss's


class MatryoshkaLoss(nn.Module):
    """Mean of a loss over beginnings of the embeddings, each brought back to unit length.

        L = Σ_m w_m · loss(z[:m] / ‖z[:m]‖) / Σ_m w_m,   m ∈ dims

    so that an index may keep the first m dimensions only. Its range is that of the inner loss.

    Reference: Kusupati et al. 2022, arXiv 2205.13147, who sum; the mean keeps the level, and with
    it learning rate and task weights, independent of the number of widths.

    Args:
        loss: from `Pairs` to `LossOutput`.
        dims: the widths m, different ones, each from 1 to the embeddings' size D. Name D too, or
            the last dimensions are not trained.
        weights: w_m > 0, one for each width; None for equal ones.

    Attributes:
        temperature, score_weight, …: the inner loss's, where it has them; may be set from outside
            at any time.

    Raises:
        ValueError: widths or weights as above are not given.
    """

    def __init__(
        self, loss: nn.Module, dims: Sequence[int], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not dims or len(set(dims)) < len(dims) or min(dims) < 1:
            raise ValueError(f"dims is {list(dims)!r}: give one or more different widths >= 1")
        if weights is not None and len(weights) != len(dims):
            raise ValueError(
                f"weights is {list(weights)!r}: give one for each of the {len(dims)} dims"
            )
        given = weights if weights is not None else [1.0] * len(dims)
        self.loss = loss
        self.dims = tuple(dims)
        self.weights = tuple(checks.positive("weights", weight) for weight in given)

    @property
    def lower_bound(self) -> float | None:
        """That of the inner loss."""
        return getattr(self.loss, "lower_bound", None)

    def __getattr__(self, name: str) -> Any:
        """What this loss has not is the inner one's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "loss":  # not there yet
                raise
            return getattr(super().__getattr__("loss"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Schedules set the inner loss's temperature and weights through this one."""
        inner = self.__dict__.get("_modules", {}).get("loss")
        own = name in OWN or inner is None or not hasattr(inner, name)
        super().__setattr__(name, value) if own else setattr(inner, name, value)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Components are ``<name>@<width>``; raises ValueError where a width exceeds D."""
        size = pairs.query.shape[1]
        if max(self.dims) > size:
            raise ValueError(
                f"dims holds {max(self.dims)}, but the embeddings have {size} dimensions: "
                "leave the larger widths out, or raise the model's output_size"
            )
        components: dict[str, Tensor] = {}
        totals, chances = [], []
        for dim, weight in zip(self.dims, self.weights, strict=True):
            output: LossOutput = self.loss(truncate(pairs, dim))
            share = weight / sum(self.weights)
            totals.append(share * output.total)
            chances.append(share * output.chance)
            components |= {f"{name}@{dim}": part for name, part in output.components.items()}
        return LossOutput(torch.stack(totals).sum(), components, torch.stack(chances).sum())


def truncate(pairs: Pairs, dim: int) -> Pairs:
    """The pairs with the first ``dim`` dimensions of every embedding, of unit length again."""
    negative = None if pairs.negative is None else _unit(pairs.negative[:, :dim])
    return pairs._replace(
        query=_unit(pairs.query[:, :dim]),
        document=_unit(pairs.document[:, :dim]),
        negative=negative,
    )


def _unit(x: Tensor) -> Tensor:
    """Rows of unit length in at least float32; zero, without a gradient, where there is none."""
    x = at_least_float32(x)  # (N, m)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)  # (N, 1)
    return torch.where(length > EPSILON, x / length.clamp_min(EPSILON), 0.0)  # (N, m)
