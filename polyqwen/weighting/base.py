"""What every weighting strategy shares: statistics of a window of steps, and the update of λ."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from polyqwen.weighting.feature_sketch import FeatureSketch
from polyqwen.weighting.gram import Gram
from polyqwen.weighting.statistics import Decision, Statistics, WindowSums, sums_of
from polyqwen.weighting.task_state import TaskState
from polyqwen.weighting.weight_update import WeightUpdate

_TINY = 1e-12  # stands for a loss at its lower bound where one divides by it


class Weighting(TaskState, ABC):
    """Base of all strategies: collects statistics, and turns them into one weight per task.

    After each micro-batch ``observe`` adds its losses; when ``due``, ``update`` reads the window,
    sets new base weights and starts the next one; ``weights`` gives λ, one per task, without a
    graph. A task without rows is absent, which is not the same as a loss of zero.

    *When*: most strategies learn from a step for the next ones (``lag`` 1). One that is `in_step`
    weighs a step by the statistics of that very step (``lag`` 0), unless gradients are accumulated:
    then the step is not complete when its first micro-batch needs weights, and the lag is 1 too.

    *Where*: all state is in buffers of fixed shape, float64 also under half-precision training, and
    T × T algebra runs in float64 on the CPU. Each rank collects its own sums; `sync` is the one
    place where they are added up. A checkpoint in the middle of a window must hold every rank's
    ``pending`` (`WeightUpdater` sees to it).

    *Not finite*: losses that are not are left out and counted; a Gram matrix or an answer that is
    not, or in an `in_step` strategy a task none of whose losses is, leaves the weights as they were
    (``kept`` counts such updates).

    Args:
        static: task -> weight, > 0; the weights to start from, and the order of tasks.
        eval_steps: optimizer steps in a window, >= 1.

    Raises:
        ValueError: no tasks, a window without steps, or a weight is not a finite number > 0.
    """

    in_step: ClassVar[bool] = False
    uses_static: ClassVar[bool] = True  # False: static weights count in a first step at most
    needs_bounds: ClassVar[bool] = False  # divides by losses or takes their logarithm
    needs_trusted: ClassVar[bool] = False
    normalize: str = "sum_to_T"

    base: Tensor  # (T,)
    window: Tensor  # (5, T), `WindowSums` over all ranks up to the last sync
    pending: Tensor  # (5, T), sums of this rank since then
    kept: Tensor  # ()

    def __init__(self, static: Mapping[str, float], eval_steps: int = 100) -> None:
        super().__init__(static)
        if eval_steps < 1:
            raise ValueError(f"weighting.eval_steps must be >= 1, got {eval_steps}")
        self.eval_steps = eval_steps
        self.lower_bounds = torch.zeros_like(self.static)
        self.judges = torch.ones_like(self.static, dtype=torch.bool)
        self.gram: Gram | None = None  # collects the tasks' gradients, for strategies that use them
        self.sketch: FeatureSketch | None = None  # likewise, what the batch looks like
        self.lag = 0 if self.in_step else 1
        self.register_buffer("base", self.static.clone())
        for sums in ("window", "pending"):
            self.register_buffer(sums, self.static.new_zeros(len(WindowSums._fields), len(static)))
        self.register_buffer("kept", torch.tensor(0))

    def bind(
        self,
        lower_bounds: Mapping[str, float | None],
        accumulate: int = 1,
        candidates: Collection[str] = (),
    ) -> None:
        """Tells what the strategy will weigh, before the first step.

        Args:
            lower_bounds: task -> the least value of its loss, None where it has none.
            accumulate: micro-batches in an optimizer step.
            candidates: losses of a library, which train a task beside its own loss. They may
                mislead, so trusted rows are judged by the others.

        Raises:
            ValueError: a loss without a lower bound, where the strategy divides by losses.
        """
        unbounded = [task for task in self.tasks if lower_bounds[task] is None]
        if unbounded and self.needs_bounds:
            raise ValueError(
                f"weighting={type(self).__name__} divides by losses, but that of "
                f"{', '.join(unbounded)} has no known lower bound; give the loss a lower_bound, or "
                "use a strategy that compares gradients"
            )
        known = [lower_bounds[task] or 0.0 for task in self.tasks]
        self.lower_bounds = torch.tensor(known, dtype=torch.float64)
        self.judges = self._judges(candidates)
        self.lag = 0 if self.in_step and accumulate == 1 else 1

    def _judges(self, candidates: Collection[str]) -> Tensor:
        """Whose losses on trusted rows count, (T,) bool: all but those of a library."""
        return torch.tensor([task not in candidates for task in self.tasks])

    @property
    def needs_after(self) -> bool:
        """Whether `observe_after` wants the losses of the same rows after each optimizer step."""
        return False

    def observe_after(self, losses: Tensor) -> None:
        """Takes the step's own losses, (T,), as they are after it; NaN where a task is absent."""
        raise NotImplementedError(f"{type(self).__name__} asks for no second look")

    @property
    def needs_features(self) -> bool:
        """Whether `observe_features` wants the pooled features of steps that are `due`."""
        return self.sketch is not None

    def observe_features(self, pooled: Tensor, finite: Tensor | None = None) -> None:
        """Takes one micro-batch of this rank.

        Args:
            pooled: (N, H) features.
            finite: () bool, whether the micro-batch counts; None: it does.
        """
        if self.sketch is None:
            raise NotImplementedError(f"{type(self).__name__} asks for no features")
        self.sketch.add(pooled, finite)

    def trusted_objective(self, losses: Tensor) -> Tensor:
        """What the trusted rows are to improve: the mean of their tasks' own losses.

        Args:
            losses: (T,), NaN where there are no such rows.
        """
        return losses[self.judges.to(losses.device) & ~torch.isnan(losses)].mean()

    def due(self, step: int) -> bool:
        """Whether the statistics of optimizer step ``step``, counted from 0, complete a window."""
        return (step + self.lag) % self.eval_steps == 0

    @property
    def sums(self) -> WindowSums:
        """What is known of the window on this rank."""
        return WindowSums(*(self.window + self.pending))

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
        self.pending += torch.stack(sums_of(losses, counts, chance))

    @torch.no_grad()
    def sync(self) -> WindowSums:
        """Adds up all ranks' sums and gradients; a collective, so call it on all of them.

        Returns:
            What was observed since the last call, over all ranks.
        """
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.pending)
            if self.gram is not None:
                self.gram.all_reduce()
            if self.sketch is not None:
                self.sketch.all_reduce()
        added = WindowSums(*self.pending.clone())
        self.window += self.pending
        self.pending.zero_()
        return added

    def end_step(self) -> None:
        """Called on all ranks after every optimizer step, before an update that is due."""

    @torch.no_grad()
    def update(self, step: int, trusted: Tensor | None = None) -> WeightUpdate | None:
        """Ends the window: sets new base weights from it; None where there is nothing to report.

        Args:
            step: absolute optimizer step; all ranks call it at the same one.
            trusted: (T,) for strategies that need it; see `Statistics`.
        """
        statistics = self._statistics(step, trusted)
        old = self.base.cpu().clone()
        decision = self._checked(statistics, old)
        if decision is None:
            return None
        self.base.copy_(decision.weights)
        notes = dict(decision.notes)
        for task, lost in self._named(statistics.skipped).items():
            if lost:
                notes[task] = "; ".join([*filter(None, [notes.get(task)]), f"{lost:g} not finite"])
        return WeightUpdate(
            step=step,
            mean_losses=self._named(statistics.loss, statistics.active),
            relative_losses=self._named(statistics.relative, statistics.active),
            counts={task: int(rows) for task, rows in self._named(statistics.rows).items()},
            old=self._named(old),
            new=self._named(decision.weights),
            reason=decision.reason,
            notes=notes,
            causes={k: self._named(v, ~torch.isnan(v)) for k, v in decision.causes.items()},
        )

    def _statistics(self, step: int, trusted: Tensor | None) -> Statistics:
        self.sync()
        sums = WindowSums(*self.window.cpu().clone())
        self.window.zero_()
        return Statistics(
            step=step,
            loss=sums.mean_loss,
            relative=sums.mean_relative,
            rows=sums.rows,
            skipped=sums.skipped,
            products=None if self.gram is None else self.gram.take(),
            trusted=None if trusted is None else trusted.detach().cpu().double(),
            features=None if self.sketch is None else self.sketch.take(),
        )

    def _checked(self, statistics: Statistics, old: Tensor) -> Decision | None:
        """The strategy's decision, or the old weights where one cannot be had."""
        if self.in_step and bool((~statistics.active & (statistics.skipped > 0)).any()):
            why = "a loss"
        elif statistics.products is not None and not statistics.products.finite:
            why = "a gradient"
        else:
            decision = self._next(statistics, old)
            if decision is None or bool(torch.isfinite(decision.weights).all()):
                return decision
            why = "a new weight"
        self.kept += 1
        return Decision(old, f"weights kept: {why} is not finite ({int(self.kept)} times so far)")

    def weights(self, step: int) -> Tensor:
        """λ at optimizer step ``step``: (T,) float32 without a graph."""
        return self.base.float()

    def learning_rate_factor(self, step: int) -> float:
        """What optimizer step ``step`` multiplies its learning rates by; 1 for most strategies."""
        return 1.0

    @abstractmethod
    def _next(self, statistics: Statistics, old: Tensor) -> Decision | None:
        """New base weights from the window and the ``old`` ones (T,); None: no change, no report.

        Own state is changed here and nowhere else.
        """

    def scaled(self, weights: Tensor, active: Tensor, old: Tensor) -> Tensor:
        """Weights of the active tasks, (T,), the others' left as they are.

        "sum_to_T" scales the active ones to sum to their number, so that the strategy does not
        change the learning rate; "none" leaves them. Weights whose sum is not positive have no such
        scale.
        """
        total = float(weights[active].sum())
        if self.normalize == "sum_to_T" and total > 0.0:
            weights = weights * int(active.sum()) / total
        return torch.where(active, weights, old)

    def _excess(self, loss: Tensor) -> Tensor:
        """Mean losses above their lower bounds, (T,); meaningful for active tasks."""
        return (loss - self.lower_bounds).clamp_min(_TINY)
