"""Argument and field checks that all losses word alike."""

from torch import Tensor

from polyqwen.losses.types import Pairs


def positive(name: str, value: float) -> float:
    """Returns ``value`` as a float; raises ValueError unless it is > 0 and finite."""
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give a finite number > 0")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """Returns ``value`` as a float; raises ValueError unless it is >= 0 and finite."""
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give a finite number >= 0 (0 switches it off)")
    return float(value)


def finite(name: str, value: float) -> float:
    """Returns ``value`` as a float; raises ValueError unless it is finite."""
    if not -float("inf") < value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give a finite number")
    return float(value)


def scores(pairs: Pairs, loss: str) -> Tensor:
    """Returns the similarity scores (B,); raises ValueError where the task has none."""
    if pairs.score is None:
        raise ValueError(
            f"{loss} needs scores, but pairs.score is None: map a column to the task's field "
            "`score`, or give the task a loss without scores (InfoNCELoss, GroundedLoss)"
        )
    return pairs.score
