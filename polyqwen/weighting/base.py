"""What every weighting strategy shares: statistics of a window of steps, and the update of λ."""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from polyqwen.weighting.record import WeightUpdate

_ROWS = ("loss_sum", "relative_sum", "loss_count", "batch_count", "skipped")


class Window(NamedTuple):
    """Statistics of one window over all ranks; float64 on the CPU, each (T,)."""

    loss: Tensor  # mean loss per row, 0 where unseen
    relative: Tensor  # mean of loss / chance level, 0 where unseen
    rows: Tensor
    batches: Tensor  # micro-batches in which the task was present, over all ranks
    skipped: Tensor  # micro-batches left out because their loss was not finite


class Weighting(nn.Module, ABC):
    """Base of all strategies: collects losses, and turns a window of them into task weights.

    After each micro-batch ``observe`` adds its losses; every few optimizer steps (each step while
    `every_step` is true) ``update`` reads the window, sets new base weights and starts the next
    one; ``weights`` gives λ, one per task, without a graph. A task without rows is absent, which is
    not the same as a loss of zero.

    All state is in buffers of fixed shape and stays float64 under half-precision training. Each
    rank collects its own losses; `sync` is the one place where they are added up. A checkpoint in
    the middle of a window must hold every rank's ``pending`` (`WeightUpdater` sees to it).

    Args:
        static: task -> weight, > 0; the weights to start from, and the order of tasks.
        eval_steps: optimizer steps in a window, >= 1.

    Raises:
        ValueError: no tasks, a window without steps, or a weight is not a finite number > 0.
    """

    base: Tensor  # (T,)
    window: Tensor  # (5, T), sums over all ranks up to the last sync
    pending: Tensor  # (5, T), sums of this rank since then
    task_ids: Tensor  # (T,)

    def __init__(self, static: Mapping[str, float], eval_steps: int = 100) -> None:
        super().__init__()
        if eval_steps < 1:
            raise ValueError(f"weighting.eval_steps must be >= 1, got {eval_steps}")
        self.eval_steps = eval_steps
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
        self.register_buffer("base", self.static.clone())
        self.register_buffer("window", self.static.new_zeros(len(_ROWS), len(self.tasks)))
        self.register_buffer("pending", torch.zeros_like(self.window))
        self.register_buffer(
            "task_ids", torch.tensor([zlib.crc32(task.encode()) for task in self.tasks])
        )

    @property
    def every_step(self) -> bool:
        """Whether `update` is due after every optimizer step, not only every few."""
        return False

    @property
    def loss_sum(self) -> Tensor:
        """Sum over the window's rows of loss · rows, (T,)."""
        return self._row("loss_sum")

    @property
    def loss_count(self) -> Tensor:
        """Rows of the window, (T,)."""
        return self._row("loss_count")

    @property
    def skipped(self) -> Tensor:
        """Losses of the window that were not finite, (T,)."""
        return self._row("skipped")

    @torch.no_grad()
    def observe(self, losses: Tensor, counts: Tensor, chance: Tensor | None = None) -> None:
        """Adds one micro-batch; nothing is copied to the host.

        Args:
            losses: (T,) mean loss per row of each task, before λ and boost; any value if absent.
            counts: (T,) rows behind each loss, 0 where a task is absent.
            chance: (T,) each loss at chance level (log N for N candidates); 0 where there is none,
                and the loss itself is collected as its relative loss.
        """
        chance = torch.zeros_like(losses) if chance is None else chance
        for name, value in (("losses", losses), ("counts", counts), ("chance", chance)):
            if value.shape != self.base.shape:
                raise ValueError(
                    f"{name} must have shape ({len(self.tasks)},), one entry per task "
                    f"{self.tasks}, got {tuple(value.shape)}"
                )
        losses, counts, chance = (v.detach().to(self.base) for v in (losses, counts, chance))
        present, finite = counts > 0, torch.isfinite(losses)
        kept = present & finite
        rows = torch.where(kept, counts, 0.0)
        loss = torch.where(kept, losses, 0.0)  # before the product: NaN · 0 is NaN
        relative = torch.where(chance > 0, loss / chance.clamp_min(1e-12), loss)
        dropped = present & ~finite
        self.pending += torch.stack([loss * rows, relative * rows, rows, kept, dropped])

    @torch.no_grad()
    def sync(self) -> None:
        """Adds the losses of all ranks to the window; a collective, so call it on all of them."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.pending)
        self.window += self.pending
        self.pending.zero_()

    @torch.no_grad()
    def update(self, step: int) -> WeightUpdate | None:
        """Ends the window: sets new base weights from it; None where there is nothing to report.

        Args:
            step: absolute optimizer step; all ranks call it at the same one.
        """
        self.sync()
        loss_sum, relative_sum, rows, batches, skipped = self.window.cpu().clone()
        per_row = 1.0 / rows.clamp_min(1.0)
        window = Window(loss_sum * per_row, relative_sum * per_row, rows, batches, skipped)
        self.window.zero_()
        old = self.base.cpu().clone()
        result = self._next(step, window, old)
        if result is None:
            return None
        new, reason, notes = result
        self.base.copy_(new)
        for task, lost in self._named(window.skipped).items():
            if lost:
                notes[task] = "; ".join([*filter(None, [notes.get(task)]), f"{lost:g} not finite"])
        seen = self._named(rows)
        return WeightUpdate(
            step=step,
            mean_losses={t: v for t, v in self._named(window.loss).items() if seen[t]},
            relative_losses={t: v for t, v in self._named(window.relative).items() if seen[t]},
            counts={task: int(value) for task, value in seen.items()},
            old=self._named(old),
            new=self._named(new),
            reason=reason,
            notes=notes,
        )

    def weights(self, step: int) -> Tensor:
        """λ at optimizer step ``step``: (T,) float32 without a graph."""
        return self.base.float()

    @abstractmethod
    def _next(
        self, step: int, window: Window, old: Tensor
    ) -> tuple[Tensor, str, dict[str, str]] | None:
        """New base weights (T,), the reason and notes by task; None: nothing changes, no report."""

    def _named(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self.tasks, values.tolist(), strict=True))

    def _row(self, name: str) -> Tensor:
        return (self.window + self.pending)[_ROWS.index(name)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Weighting":
        # Buffers follow the module to its device but keep their dtype: in bfloat16 a sum of counts
        # stops growing at 256.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}task_ids")
        if saved is not None and saved.tolist() != self.task_ids.tolist():
            raise ValueError(
                f"the checkpoint's task weights are for other tasks or another order than "
                f"{self.tasks}; keep tasks and order, or load without the weighting's state"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
