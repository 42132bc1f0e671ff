"""The situation a choice is made in: c, the numbers that ask for losses."""

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyqwen.weighting.lossrag.measurements import Measurement, RunningMean, RunningScale

CONTEXTS = ("none", "state", "features", "both")
MIX = 4  # numbers that tell one task mix from another
SKETCH = 8  # numbers of the batch's pooled features
STATE = (
    "progress",  # step / total steps
    "trusted_level",  # log of the trusted loss against the first
    "trusted_slope",  # its mean change per update over the root mean square: −1 falls steadily
    "conflict_rate",  # share of pairs of losses with a negative cosine
    "mean_agreement",  # mean r
    "agreement_spread",  # standard deviation of r over losses
    "norm_spread",  # standard deviation of log gradient norms over losses
    "present",  # share of the library that has rows
    "evenness",  # entropy of the losses' rows over its maximum
    *(f"mix_{i}" for i in range(MIX)),
)
ENTRIES = (*STATE, *(f"feature_{i}" for i in range(SKETCH)))


class Context(nn.Module):
    """c: the state of training, and what the batch looks like.

    State entries are ratios, cosines and logarithms of ratios, so they stand as they are; the
    sketch of pooled features is z-scored over updates. The mix of rows over losses enters by its
    evenness and as ``Σ_i share_i h_i`` with a fixed random h_i for each *name*: that tells mixes
    apart whatever the number of losses, but is worth nothing for names never seen, so it goes with
    the losses' ids. The constant entry is the query's own bias. Not here: what the strategy is not
    told (learning rate, alignment, uniformity, effective rank, in-batch accuracy).

    Args:
        losses: names.
        kind: "none", "state", "features" or "both"; entries left out are 0.
        named: whether names may count.
        seed: of h.
    """

    values: Tensor  # (C,) of the last update
    first: Tensor  # () log trusted loss at the first update, NaN before
    last: Tensor  # () at the last, NaN before

    def __init__(self, losses: Sequence[str], kind: str, named: bool, seed: int) -> None:
        super().__init__()
        self.kind = kind
        self.slopes = RunningMean((2,))  # of the trusted loss's change and of its square
        self.scale = RunningScale(SKETCH)
        self.names = torch.stack([named * name_vector(name, MIX, seed) for name in losses])
        self.register_buffer("values", torch.zeros(len(ENTRIES), dtype=torch.float64))
        for name in ("first", "last"):
            self.register_buffer(name, torch.full((), torch.nan, dtype=torch.float64))

    def observe(
        self,
        seen: Measurement,
        rows: Tensor,
        sketch: Tensor | None,
        learn: bool = True,
    ) -> None:
        """Sets c for this update.

        Args:
            seen: what was measured.
            rows: (M,) of each loss.
            sketch: (8,) of the batch's pooled features, or None.
            learn: whether the sketch's z-scores follow.
        """
        state = torch.cat([self._state(seen, rows), rows @ self.names / rows.sum()])
        features = torch.zeros(SKETCH, dtype=torch.float64)
        if sketch is not None:
            if learn:
                self.scale.add(sketch[None])
            features = self.scale(sketch)
        if self.kind not in ("state", "both"):
            state = torch.zeros_like(state)
        self.values.copy_(torch.cat([state, features]))

    def _state(self, seen: Measurement, rows: Tensor) -> Tensor:
        level, slope = self._trusted(seen.trusted)
        looked = seen.looked
        cosines = seen.cosines[looked][:, looked]
        pairs = cosines[tuple(torch.triu_indices(len(cosines), len(cosines), offset=1))]
        r, log_norm = seen.agreement[looked], seen.norms[looked].log()
        share = rows / rows.sum()
        entropy = -float(torch.xlogy(share, share).sum())
        values = (
            seen.progress,
            level,
            slope,
            float((pairs < 0.0).double().mean()) if len(pairs) else 0.0,
            float(r.mean()),
            float(r.std(correction=0)),
            min(float(log_norm.std(correction=0)), 3.0),
            float((rows > 0).double().mean()),
            entropy / math.log(len(rows)) if len(rows) > 1 else 1.0,
        )
        return torch.tensor(values, dtype=torch.float64)

    def _trusted(self, now: float) -> tuple[float, float]:
        """Level and slope of the trusted loss; (0, 0) while unknown."""
        if not math.isfinite(now):
            return 0.0, 0.0
        if math.isnan(float(self.first)):
            self.first.fill_(now)
        change = now - float(self.last)
        self.last.fill_(now)
        self.slopes.add(torch.tensor([change, change**2], dtype=torch.float64))
        mean, square = self.slopes.mean.nan_to_num(0.0).tolist()
        level = min(max(now - float(self.first), -3.0), 3.0)
        return level, mean / math.sqrt(square + 1e-8)


def name_vector(name: str, size: int, seed: int) -> Tensor:
    """(size,) drawn from N(0, 1/size) by the name and the seed alone, wherever the loss stands."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    return torch.randn(size, generator=generator, dtype=torch.float64) / size**0.5
