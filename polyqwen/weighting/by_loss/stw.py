"""Strategic task weighting."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required

import torch
from torch import Tensor

from polyqwen.weighting.bounded_scale import scale_within_bounds
from polyqwen.weighting.by_loss.adaptive_interval import AdaptiveInterval
from polyqwen.weighting.by_loss.beta import read_beta
from polyqwen.weighting.by_loss.calibrated import Calibration
from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class StrategicArguments(NormalizedArguments, total=False):
    """The arguments of `StrategicTaskWeighting`, for constructors that hand them on."""

    alpha: Required[Mapping[str, float]]
    beta: Required[Mapping[str, float | str | Sequence[str] | None]]
    fallback: Literal["static", "calibrated"]
    calibration_steps: int
    min_tasks: int
    min_samples: int
    loss_floor: float
    bounds: tuple[float, float]
    rate_limit: float | None
    collect: str
    handover: int | None
    interval: Mapping[str, Any] | None


class StrategicTaskWeighting(NormalizedWeighting):
    """Weights that follow the inverse of each task's recent loss (STW).

    ``λ_t = β(step) · norm_t[(l̄ / l_t) · α_t]``, with l_t the mean loss of task t since the last
    update and l̄ the mean of l_t over the tasks seen (viPolyQwen, "Dynamic Task Weighting"). It
    balances loss *values*, not gradients, and rewards losses that fall to zero, hence the floor.

    *β* is one factor on the whole loss, and AdamW does not see a constant factor: with normalised
    weights all that is left of it are transients of Adam's averages and of gradient clipping
    (measured: docs/weighting.md). ``beta.mode`` says what it multiplies instead: "loss" as printed;
    "alpha" the α of the foundation tasks, ``beta.tasks``, before weights are normalised, so that
    β > 1 favours them over the others, and β < 1 the others; "learning_rate" the learning rate of
    every parameter (`learning_rate_factor`), which is what a factor on the loss is under SGD.

    *Fallback*: where fewer than ``min_tasks`` tasks were seen the aim is the static weights, or
    with ``fallback: calibrated`` those that the first ``calibration_steps`` optimizer steps of each
    task gave (`Calibration`, the report's "empirical weights"); until then the static ones.

    *Limits*: a base weight stays within ``bounds`` and changes by at most ``rate_limit`` per
    update. With "sum_to_T" the seen tasks' base weights sum to their number all the same, where
    the limits leave room for it: those that are not held share the difference in proportion
    (`scale_within_bounds`). In a fallback all weights sum to what the fallback weights sum to.

    ``handover`` makes the way from the static weights continuous: the first update finds the
    factors c_t = static_t / formula_t, and the k-th update after it multiplies the formula by
    ``c_t^(1 − k / handover)``: static weights first, the formula alone in the end.
    ``interval`` adapts the time between updates to how fast losses move.

    Deviations from the report: weights are normalised (their sum is a hidden learning rate), kept
    within bounds, and change gradually, also on the way back to the fallback. A task counts as seen
    from ``min_samples`` rows on; others keep their base weight. With mode "loss" β is applied when
    weights are read, so it switches at its very step, and multiplies the fallback too.

    Args:
        static: task -> weight, within ``bounds``; start and fallback.
        alpha: task -> factor, > 0; 1 for tasks left out. Names of tasks that do not take part are
            ignored, so that one table serves every choice of tasks.
        beta: ``foundation`` (> 0) before step ``until_step``, ``balance`` (> 0) from it on;
            ``until_step`` None: ``foundation`` throughout. ``mode``: "loss" (default), "alpha" or
            "learning_rate". ``tasks``: whose α is multiplied with "alpha": some, not all.
        normalize: "sum_to_T" scales the seen tasks' weights to sum to their number, or "none".
        fallback: "static", or "calibrated".
        calibration_steps: optimizer steps of each task for "calibrated", >= 1.
        min_tasks: tasks that must be seen, >= 1; with fewer the fallback weights are the target.
        min_samples: rows that make a task seen, >= 1.
        loss_floor: smallest mean loss to use, > 0.
        bounds: smallest and largest base weight.
        rate_limit: largest factor of change per update, > 1; None: no limit.
        collect: "loss", or "relative" for losses divided by their chance level.
        handover: updates over which the formula takes over from the static weights, >= 0; 0: at
            once; None: never, the recalibrated α stays.
        interval: None for a fixed one, or ``shortest`` and ``longest`` (optimizer steps), ``move``
            and ``settle``: a largest relative change of a mean loss since the last update above
            ``move`` halves the interval, one below ``settle`` doubles it.
        eval_steps: optimizer steps between updates, >= 1; with ``interval``, to the first one.

    Raises:
        ValueError: an argument is out of range, or a static weight is outside ``bounds``.
    """

    needs_bounds = True

    correction: Tensor  # (T,) static weights over the formula's at the first update
    updates: Tensor  # () updates that used the formula

    def __init__(
        self,
        static: Mapping[str, float],
        alpha: Mapping[str, float],
        beta: Mapping[str, float | str | Sequence[str] | None],
        normalize: str = "sum_to_T",
        fallback: Literal["static", "calibrated"] = "static",
        calibration_steps: int = 40,
        min_tasks: int = 2,
        min_samples: int = 8,
        loss_floor: float = 1e-3,
        bounds: tuple[float, float] = (0.05, 20.0),
        rate_limit: float | None = 1.5,
        collect: str = "loss",
        handover: int | None = 0,
        interval: Mapping[str, Any] | None = None,
        eval_steps: int = 100,
    ) -> None:
        super().__init__(static, normalize, eval_steps)
        self.beta_schedule = read_beta(beta, self.tasks, normalize == "sum_to_T")
        for task, factor in alpha.items():
            self.check(
                factor > 0.0 and math.isfinite(factor), f"alpha.{task}", factor, "> 0, finite"
            )
        low, high = bounds
        options = ("static", "calibrated")
        self.check(fallback in options, "fallback", fallback, "'static' or 'calibrated'")
        self.check(calibration_steps >= 1, "calibration_steps", calibration_steps, ">= 1")
        self.check(collect in ("loss", "relative"), "collect", collect, "'loss' or 'relative'")
        self.check(min_tasks >= 1, "min_tasks", min_tasks, ">= 1")
        self.check(min_samples >= 1, "min_samples", min_samples, ">= 1")
        self.check(loss_floor > 0.0, "loss_floor", loss_floor, "> 0, e.g. 1e-3")
        self.check(0.0 < low < high, "bounds", bounds, "[low, high] with 0 < low < high")
        self.check(rate_limit is None or rate_limit > 1.0, "rate_limit", rate_limit, "> 1 or null")
        for task, weight in static.items():
            self.check(low <= weight <= high, f"static.{task}", weight, f"within bounds {bounds}")
        self.alpha = torch.tensor([alpha.get(t, 1.0) for t in self.tasks], dtype=torch.float64)
        self.collect = collect
        self.min_tasks, self.min_samples = min_tasks, min_samples
        self.loss_floor, self.low, self.high = loss_floor, low, high
        self.rate_limit = math.inf if rate_limit is None else rate_limit
        self.check(handover is None or handover >= 0, "handover", handover, ">= 0 or null")
        self.handover = handover
        calibrates = fallback == "calibrated"
        self.calibration = (
            Calibration(len(static), calibration_steps, loss_floor) if calibrates else None
        )
        self.interval = None if interval is None else AdaptiveInterval(len(static), **interval)
        self.register_buffer("correction", torch.ones_like(self.base))
        self.register_buffer("updates", torch.tensor(0))

    def due(self, step: int) -> bool:
        """As `Weighting.due`, or when the adaptive interval says so."""
        adapted = None if self.interval is None else self.interval.due(step)
        return super().due(step) if adapted is None else adapted

    def beta(self, step: int) -> float:
        """β at ``step``: foundation before ``until_step``, balance from it on."""
        return self.beta_schedule.at(step)

    def weights(self, step: int) -> Tensor:
        """The base weights, with mode "loss" times β(step): (T,) float32."""
        factor = self.beta(step) if self.beta_schedule.mode == "loss" else 1.0
        return (factor * self.base).float()

    def learning_rate_factor(self, step: int) -> float:
        """β(step) with mode "learning_rate", else 1."""
        return self.beta(step) if self.beta_schedule.mode == "learning_rate" else 1.0

    def end_step(self) -> None:
        """Adds the step to the calibration, until that is complete; a collective."""
        if self.calibration is None or self.calibration.complete:
            return
        added = self.sync()
        self.calibration.collect(self._excess(added.mean_loss.cpu()), added.rows.cpu())

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        seen = statistics.rows >= self.min_samples
        notes = {
            task: f"{rows:g} rows, {self.min_samples} needed"
            for task, rows in self._named(statistics.rows).items()
            if 0 < rows < self.min_samples
        }
        if int(seen.sum()) < self.min_tasks:
            target, name = self._fallback()
            summed, total = torch.ones_like(seen), float(target.sum())
            reason = f"{name} weights: {int(seen.sum())} tasks seen, {self.min_tasks} needed"
        else:
            target = self._strategic(statistics, seen, old)
            summed, total = seen, float(seen.sum())
            reason = f"inverse {self.collect}, normalize {self.normalize}"
        if self.interval is not None:
            reason += "; " + self.interval.adapt(statistics.step, statistics.loss, seen)
        new, held = self._limited(target, old, summed, total)
        for task, aim in self._named(target, held).items():
            notes[task] = "; ".join([*filter(None, [notes.get(task)]), f"held, aims {aim:.3f}"])
        beta = f"beta {self.beta(statistics.step):g}{self.beta_schedule.acts_on}"
        return Decision(new, f"{reason}; {beta}", notes)

    def _fallback(self) -> tuple[Tensor, str]:
        """Target weights where too little was seen, (T,), and what they are."""
        if self.calibration is None:
            return self.static, "static"
        if self.calibration.complete:
            return self.calibration.weights(), "calibrated"
        seen, steps = int(self.calibration.steps_seen.min()), self.calibration.steps
        return self.static, f"static (calibrated after {steps} steps of each task, {seen} so far)"

    def _limited(
        self, target: Tensor, old: Tensor, summed: Tensor, total: float
    ) -> tuple[Tensor, Tensor]:
        """The target within bounds and rate limit, (T,), and which tasks those hold back.

        Args:
            target: (T,).
            old: (T,) base weights.
            summed: (T,) tasks whose weights sum to ``total``, with "sum_to_T".
            total: of them.
        """
        low = (old / self.rate_limit).clamp_min(self.low)
        high = (old * self.rate_limit).clamp_max(self.high)
        new = target.clamp(low, high)
        if self.normalize == "sum_to_T":
            new[summed] = scale_within_bounds(target[summed], total, low[summed], high[summed])
        held = ((target < new) & (new == low)) | ((target > new) & (new == high))
        return new, held

    def _strategic(self, statistics: Statistics, seen: Tensor, old: Tensor) -> Tensor:
        """Target base weights, (T,); those of tasks that were not seen are the ``old`` ones."""
        losses = self._excess(statistics.loss) if self.collect == "loss" else statistics.relative
        losses = losses.clamp_min(self.loss_floor)
        target = losses[seen].mean() / losses * self._factors(statistics.step)
        target = self.scaled(target, seen, old)
        return self.scaled(target * self._handing_over(target, seen), seen, old)

    def _factors(self, step: int) -> Tensor:
        """α, with mode "alpha" times β(step) for the foundation tasks: (T,)."""
        alpha = self.alpha.cpu()
        if self.beta_schedule.mode != "alpha":
            return alpha
        foundation = torch.tensor([task in self.beta_schedule.tasks for task in self.tasks])
        return torch.where(foundation, alpha * self.beta(step), alpha)

    def _handing_over(self, formula: Tensor, seen: Tensor) -> Tensor | float:
        """What is left of the static weights in the formula, (T,) factors."""
        if self.handover == 0:
            return 1.0
        if not int(self.updates):
            self.correction.copy_(torch.where(seen, self.static / formula, 1.0))
        left = 1.0 if self.handover is None else 1.0 - int(self.updates) / self.handover
        self.updates += 1
        return self.correction.cpu() ** max(0.0, left)
