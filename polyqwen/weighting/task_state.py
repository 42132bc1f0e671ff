"""Buffers with one entry per task."""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class TaskState(nn.Module):
    """A module whose buffers hold something of each task.

    They follow the module to its device but keep their dtype, also under half-precision training:
    in bfloat16 a sum of counts stops growing at 256. A state that was saved for other tasks, or
    for another order of them, is refused.

    Args:
        static: task -> weight, > 0; the order of tasks.

    Raises:
        ValueError: no tasks, or a weight is not a finite number > 0.
    """

    task_ids: Tensor  # (T,)

    def __init__(self, static: Mapping[str, float]) -> None:
        super().__init__()
        if not static:
            raise ValueError("weighting.static is empty; give each task a weight")
        for task, weight in static.items():
            if not (weight > 0.0 and math.isfinite(weight)):
                raise ValueError(
                    f"weighting.static.{task} must be finite and > 0, got {weight}; "
                    "to leave a task out, drop it from the tasks"
                )
        self.tasks = tuple(static)
        self.static = torch.tensor(list(static.values()), dtype=torch.float64)
        ids = [zlib.crc32(task.encode()) for task in self.tasks]
        self.register_buffer("task_ids", torch.tensor(ids))

    @staticmethod
    def check(valid: bool, name: str, value: object, allowed: str) -> None:
        """Raises `ValueError` for an argument of a strategy that is out of its range."""
        if not valid:
            raise ValueError(f"weighting.{name} must be {allowed}, got {value!r}")

    def _named(self, values: Tensor, of: Tensor | None = None) -> dict[str, float]:
        """(T,) values by task, of some tasks or all."""
        chosen = [True] * len(self.tasks) if of is None else of.tolist()
        values_of = zip(self.tasks, values.tolist(), chosen, strict=True)
        return {task: value for task, value, shown in values_of if shown}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TaskState":
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}task_ids")
        if saved is not None and saved.tolist() != self.task_ids.tolist():
            raise ValueError(
                f"the checkpoint's task weights are for other tasks or another order than "
                f"{self.tasks}; keep tasks and order, or load without the weighting's state"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
