"""From pooled vectors to embeddings, in training and in use alike."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.data.batch import TaskBatch
from polyqwen.models.projection import PartedProjection
from polyqwen.training.pairs import by_task


class Features(NamedTuple):
    """What the parts of the model make of a batch's contents.

    With a projection per task there is one row for each content and task that uses it.
    """

    pooled: Tensor  # (N, H)
    projected: Tensor  # (N, D)
    embeddings: Tensor  # (N, D), unit norm, fp32
    tasks: dict[str, TaskBatch]  # their indices point at these rows


def embedded(
    projection: nn.Module, pooled: Tensor, tasks: Mapping[str, TaskBatch], order: Sequence[str]
) -> Features:
    """Projects pooled vectors and gives them unit norm.

    Args:
        projection: (N, H) -> (N, D), or one with a part per task.
        pooled: (N, H).
        tasks: the batch's pairs.
        order: all tasks of the run, as the projection's parts are ordered.
    """
    if isinstance(projection, PartedProjection):
        rows, sizes, tasks = by_task(tasks, order)
        pooled = pooled[rows]
        projected = projection(pooled, sizes)
    else:
        projected = projection(pooled)
    return Features(pooled, projected, F.normalize(projected.float(), dim=-1), dict(tasks))
