"""The metric that stands for a task in scores and comparisons, read from a run's results."""

from collections.abc import Mapping

MAIN = ("spearman", "macro_f1", "recall@1")  # the first that a task has
ZERO_BY_CHANCE = ("spearman",)  # which a random order of scored pairs has no entry for


def main_metric(metrics: Mapping[str, object]) -> str | None:
    """Spearman of scored pairs, macro-F1 of labels, else recall@1; None of texts only watched."""
    return next((name for name in MAIN if name in metrics), None)
