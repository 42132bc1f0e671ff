"""What an update of `LossRAG` says of itself: numbers for the charts, words for the log."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyqwen.weighting.lossrag.descriptors import AVERAGED

if TYPE_CHECKING:
    from polyqwen.weighting.lossrag.strategy import LossRAG

SHOWN = ("conflict", "slope", "left")  # of the descriptors, beside what has a name of its own


def causes(rag: "LossRAG", used: Tensor, known: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name -> (M,), NaN where a loss has none.

    ``share``, ``agreement`` (smoothed r), ``score``, ``active`` (1 on, 0 off), ``evidence`` with
    ``evidence_error`` (mean r since the loss was last switched, and its standard error),
    ``gradient_norm``, ``cosine`` (to the anchor), ``conflict``, ``slope``, ``left``, ``realised``.
    """
    evidence, error = rag.library.activity.estimate()
    means = rag.library.descriptors.averages.mean
    taking_part = used & (rag.applied.cpu() > 0.0)
    all_causes = {
        **known,
        "score": torch.where(taking_part, rag.scores.cpu(), torch.nan),
        "active": torch.where(used, rag.library.activity.on.cpu().double(), torch.nan),
        "evidence": evidence,
        "evidence_error": torch.where(torch.isfinite(error), error, torch.nan),
        "gradient_norm": torch.where(used, rag.norms.cpu(), torch.nan),
        "cosine": means[:, AVERAGED.index("cos_anchor")],
        **{name: means[:, AVERAGED.index(name)] for name in SHOWN},
        "realised": rag.library.credit.correlation,
    }
    return all_causes


def reason(rag: "LossRAG", used: Tensor) -> str:
    """Which losses the step is made of, and how well that agrees with the trusted rows."""
    share = rag.applied.cpu()
    order = share.argsort(descending=True, stable=True).tolist()
    taken = ", ".join(f"{rag.tasks[i]} {share[i]:.0%}" for i in order if share[i] > 0.0)
    off = int((used & ~rag.library.activity.on.cpu()).sum())
    frozen = ", policy frozen" if rag.chooser.frozen else ""
    return f"LossRAG: {taken}; {off} off; J {float(rag.expected):+.3f}{frozen}"
