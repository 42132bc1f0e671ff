"""Which losses take part: off on evidence of harm, on again on evidence of help."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyqwen.weighting.lossrag.measurements import RunningMean

Z = 1.64  # one-sided, about 5 % for one look
FEWEST = 3  # looks before a judgement


class Activity(nn.Module):
    """Judges each loss by the running mean of r, its cosine to the trusted gradient.

    Off when ``mean(r) + 1.64 se < 0`` at ``patience`` looks in a row; then its evidence starts
    anew, it is looked at every ``retest_every`` updates only, and it is on again when
    ``mean(r) − 1.64 se > 0``. Tests that confirm the harm start the evidence anew too, so that a
    loss need not make up for all of its past. ``se = σ / √(n − 1)``, n the effective number of
    looks. Neighbouring looks are not independent, so se is too small: hence ``patience``.
    The anchor is always on, hence never are all off.

    Args:
        names: of the losses.
        anchor: place of the anchor.
        patience: looks in a row, >= 1; None never switches a loss off.
        retest_every: updates, >= 1.
        decay: of the evidence from look to look.
    """

    on: Tensor  # (M,) bool
    against: Tensor  # (M,) looks in a row that speak against the loss
    looks: Tensor  # (M,) since its evidence last started
    waited: Tensor  # (M,) updates with the loss present since it was switched off
    looked: Tensor  # (M,) bool, at the last update

    def __init__(
        self,
        names: Sequence[str],
        anchor: int,
        patience: int | None,
        retest_every: int,
        decay: float = 0.9,
    ) -> None:
        super().__init__()
        self.names, self.anchor = names, anchor
        self.patience = math.inf if patience is None else patience
        self.retest_every = retest_every
        self.evidence = RunningMean((len(names), 2), decay)  # r and r²
        self.register_buffer("on", torch.ones(len(names), dtype=torch.bool))
        self.register_buffer("looked", torch.zeros(len(names), dtype=torch.bool))
        for name in ("against", "looks", "waited"):
            self.register_buffer(name, torch.zeros(len(names), dtype=torch.int64))

    def look(self, present: Tensor) -> Tensor:
        """Whose gradients count at this update, (M,) bool: those on, and those due for a test."""
        on = self.on.cpu()
        waited = torch.where(on, 0, self.waited.cpu() + present)
        self.waited.copy_(waited)
        looked = present & (on | (waited % self.retest_every == 0))
        self.looked.copy_(looked)
        return looked

    def judge(self, agreement: Tensor) -> dict[str, str]:
        """Takes r, (M,), of the losses looked at; returns loss -> what was decided, and why."""
        on, looked, against = self.on.cpu(), self.looked.cpu(), self.against.cpu()
        known = torch.where(looked, agreement, torch.nan)
        self.evidence.add(torch.stack([known, known**2], -1))
        looks = self.looks.cpu() + looked
        mean, error = self.estimate()
        enough = looks >= FEWEST
        harm = enough & (mean + Z * error < 0.0)
        against = torch.where(looked, torch.where(harm, against + 1, 0), against)
        off = on & looked & (against >= self.patience)
        off[self.anchor] = False
        back = ~on & looked & enough & (mean - Z * error > 0.0)
        notes = {}
        for place in (off | back).nonzero().flatten().tolist():
            found = f"agreement {mean[place]:+.3f} ± {Z * error[place]:.3f}"
            notes[self.names[place]] = (
                f"off: {found} below 0 at {int(against[place])} looks in a row"
                if off[place]
                else f"on again: {found} above 0 at {int(looks[place])} tests"
            )
        anew = off | back | (~on & looked & harm)
        self.on.copy_((on | back) & ~off)
        self.against.copy_(torch.where(anew, 0, against))
        self.looks.copy_(torch.where(anew, 0, looks))
        self.waited.copy_(torch.where(off, 0, self.waited.cpu()))
        self.evidence.restart(anew)
        return notes

    @property
    def restored(self) -> Tensor:
        """Losses that the last judgement switched on again, (M,) bool."""
        return self.on.cpu() & self.looked.cpu() & (self.looks.cpu() == 0)

    def estimate(self) -> tuple[Tensor, Tensor]:
        """Mean r and its standard error, (M,) each; NaN and infinite before the second look."""
        mean, square = self.evidence.mean.unbind(-1)
        count = self.evidence.count[:, 0]
        variance = (square - mean**2).clamp_min(0.0)
        return mean, torch.where(count > 1.0 + 1e-9, (variance / (count - 1.0)).sqrt(), torch.inf)
