"""What is known of a loss by what it does: φ, the numbers that its embedding is made of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyqwen.losses.candidates import FAMILIES
from polyqwen.weighting.lossrag.measurements import Measurement, RunningMean, RunningScale

AVERAGED = (  # over updates, each with a decay of 0.9
    "log_norm",  # log of the gradient norm against the median loss's
    "cos_mean",  # cosine to the mean of all losses' directions
    "cos_anchor",  # cosine to the anchor's gradient
    "conflict",  # mean over the other losses of max(0, −cosine)
    "sensitivity",  # log(‖g‖ / l): relative change of the loss per unit of movement of the head
    "credit",  # r, the cosine to the trusted gradient
    "harmful",  # 1 where r < 0
    "slope",  # log(l / l at the last look)
    "left",  # log(l / l at the first look)
)
SPREADS = ("norm_spread", "credit_spread")  # standard deviations of log_norm and credit over time
DERIVED = (*SPREADS, "steadiness")  # mean(r)² / mean(r²): signal against noise along the aim
FEATURES = (*AVERAGED, *DERIVED, "realised", *(f"family_{family}" for family in FAMILIES))
_MEASURED = len(FEATURES) - len(FAMILIES)


class Descriptors(nn.Module):
    """φ of every loss: running averages of what was measured, z-scored, and a code of its family.

    z-scores are taken over losses and updates together, so that "a large gradient" means the same
    for a loss never seen before. Left out, as inner products of one update's gradients do not tell
    it: the cosine of a loss's gradient to its own last one and ‖E g‖² / E‖g‖² (``steadiness``
    stands in), the radial part of gradients at the embeddings, the share of pairs with none, and
    changes under noise, truncation or another temperature, which cost further passes.

    Args:
        families: of each loss, one of `FAMILIES` or None.
    """

    first: Tensor  # (M,) log l at the first look, NaN before
    last: Tensor  # (M,) log l at the last look, NaN before

    def __init__(self, families: Sequence[str | None]) -> None:
        super().__init__()
        self.averages = RunningMean((len(families), len(AVERAGED) + 2))  # and two squares
        self.scale = RunningScale(_MEASURED)
        self.family = torch.tensor(
            [[float(own == family) for family in FAMILIES] for own in families],
            dtype=torch.float64,
        )  # (M, families)
        blank = torch.full((len(families),), torch.nan, dtype=torch.float64)
        self.register_buffer("first", blank.clone())
        self.register_buffer("last", blank.clone())

    def observe(self, seen: Measurement, anchor: int, realised: Tensor, learn: bool = True) -> None:
        """Takes one look; losses that were not looked at keep their averages.

        Args:
            seen: the look.
            anchor: place of the anchor loss.
            realised: (M,) credit in hindsight, NaN where unknown.
            learn: whether z-scores' means and variances follow.
        """
        raw = torch.stack([*self._averaged(seen, anchor).values()], -1)  # (M, 9)
        squares = raw[:, [AVERAGED.index("log_norm"), AVERAGED.index("credit")]] ** 2
        looked = seen.looked[:, None]
        self.averages.add(torch.where(looked, torch.cat([raw, squares], -1), torch.nan))
        if learn:
            self.scale.add(self.raw(realised)[seen.looked])

    def features(self, realised: Tensor) -> Tensor:
        """φ, (M, F) in the order of `FEATURES`; 0 where a number is unknown."""
        return torch.cat([self.scale(self.raw(realised)), self.family], -1)

    def raw(self, realised: Tensor) -> Tensor:
        """The measured part of φ before z-scoring, (M, F − 6); NaN where unknown."""
        means = self.averages.mean
        averaged, squares = means[:, : len(AVERAGED)], means[:, len(AVERAGED) :]
        centres = averaged[:, [AVERAGED.index("log_norm"), AVERAGED.index("credit")]]
        # the 1e-6 under the root: a difference of rounding errors is no spread
        spreads = ((squares - centres**2).clamp_min(0.0) + 1e-6).sqrt() - 1e-3
        steadiness = centres[:, 1:] ** 2 / (squares[:, 1:] + 1e-6)
        return torch.cat([averaged, spreads, steadiness, realised[:, None]], -1)

    def _averaged(self, seen: Measurement, anchor: int) -> dict[str, Tensor]:
        looked, cosines, log_norm = seen.looked, seen.cosines, seen.norms.log()
        pairs = looked[:, None] & looked[None, :]
        others = pairs & ~torch.eye(len(looked), dtype=torch.bool)
        total = (cosines * pairs).sum()
        log_loss = seen.loss.log()
        last = self.last.cpu().clone()
        self.first.copy_(
            torch.where(looked & torch.isnan(self.first.cpu()), log_loss, self.first.cpu())
        )
        self.last.copy_(torch.where(looked, log_loss, last))
        r = seen.agreement
        values = {
            "log_norm": log_norm - log_norm[looked].median(),
            "cos_mean": (cosines * looked).sum(1) / total.clamp_min(1e-6).sqrt(),
            "cos_anchor": cosines[:, anchor] if looked[anchor] else torch.full_like(r, torch.nan),
            "conflict": ((-cosines).clamp_min(0.0) * others).sum(1) / others.sum(1).clamp_min(1),
            "sensitivity": log_norm - log_loss,
            "credit": r,
            "harmful": (r < 0.0).to(r),
            "slope": log_loss - last,
            "left": log_loss - self.first.cpu(),
        }
        return {name: values[name].clamp(-5.0, 5.0) for name in AVERAGED}
