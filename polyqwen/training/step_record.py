"""What a training step leaves behind for callbacks."""

from typing import NamedTuple

from torch import Tensor

from polyqwen.data.batch import TaskBatch
from polyqwen.losses.types import LossOutput


class StepRecord(NamedTuple):
    """What the last training step saw, detached, for callbacks to log."""

    total: Tensor
    outputs: dict[str, LossOutput]  # by loss
    weights: dict[str, Tensor]  # λ · boost, as applied, by loss
    gaps: dict[str, Tensor]  # matching minus non-matching cosine, by task
    rows: dict[str, int]  # by task
    embeddings: Tensor  # (N, D), of this rank
    tasks: dict[str, TaskBatch]  # this rank's pairs of them
