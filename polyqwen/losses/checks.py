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


def labels(pairs: Pairs, loss: str, classes: int | None = None) -> Tensor:
    """Returns the classes (B,); raises ValueError where the task has none.

    Args:
        pairs: the batch.
        loss: name of the loss, for the message.
        classes: their number, looked at on the CPU only: elsewhere it would wait for the device.
    """
    label = pairs.label
    if label is None:
        raise ValueError(
            f"{loss} needs labels, but pairs.label is None: give the task a label and its classes, "
            "and map the column to its field `labels`"
        )
    if classes is not None and label.device.type == "cpu" and len(label):
        low, high = int(label.min()), int(label.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"{loss} has {classes} classes, but pairs.label holds {low} to {high}: give the "
                "loss the classes of the task"
            )
    return label
