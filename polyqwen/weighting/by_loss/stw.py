"""Strategic task weighting, and its interval that follows how fast losses move."""

import math
from collections.abc import Mapping
from typing import Any, Required

import torch
from torch import Tensor, nn

from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class AdaptiveInterval(nn.Module):
    """The number of optimizer steps to the next update, doubled or halved at each.

    With ``m = max_t |l_t / l_t' − 1|`` the largest relative change of a task's mean loss from the
    last window to this one: m > ``move`` halves the interval, m < ``settle`` doubles it.

    Args:
        tasks: their number.
        shortest: optimizer steps, >= 1.
        longest: optimizer steps, >= ``shortest``.
        move: relative change, > ``settle``.
        settle: relative change, >= 0.

    Raises:
        ValueError: an argument is out of its range.
    """

    last: Tensor  # (T,) mean losses of the last window, NaN where unseen
    steps: Tensor  # () the interval, 0 before the first update
    next: Tensor  # () the step to update at

    def __init__(
        self, tasks: int, shortest: int, longest: int, move: float = 0.1, settle: float = 0.02
    ) -> None:
        super().__init__()
        if not 1 <= shortest <= longest:
            raise ValueError(
                f"weighting.interval needs 1 <= shortest <= longest, got {shortest}, {longest}"
            )
        if not 0.0 <= settle < move:
            raise ValueError(f"weighting.interval needs 0 <= settle < move, got {settle}, {move}")
        self.shortest, self.longest, self.move, self.settle = shortest, longest, move, settle
        self.register_buffer("last", torch.full((tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("next", torch.tensor(0))

    def due(self, step: int) -> bool | None:
        """Whether an update follows optimizer step ``step``; None before the first one."""
        return step + 1 >= int(self.next) if int(self.steps) else None

    def adapt(self, step: int, loss: Tensor, seen: Tensor) -> str:
        """Sets the next update and says why.

        Args:
            step: optimizer steps made so far.
            loss: (T,) mean losses of the window.
            seen: (T,) which of them count.
        """
        last = self.last.cpu()
        known = seen & ~torch.isnan(last)
        change = float((loss / last - 1.0).abs()[known].max()) if known.any() else None
        interval = int(self.steps) or self.shortest
        if change is not None and change > self.move:
            interval = max(self.shortest, interval // 2)
        elif change is not None and change < self.settle:
            interval = min(self.longest, interval * 2)
        self.last.copy_(torch.where(seen, loss, last))
        self.steps.fill_(interval)
        self.next.fill_(step + interval)
        moved = "" if change is None else f"losses moved by {change:.1%}, "
        return f"{moved}next in {interval} steps"


class StrategicArguments(NormalizedArguments, total=False):
    """The arguments of `StrategicTaskWeighting`, for constructors that hand them on."""

    alpha: Required[Mapping[str, float]]
    beta: Required[Mapping[str, float | None]]
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

    ``handover`` makes the way from the static weights continuous: the first update finds the
    factors c_t = static_t / formula_t, and the k-th update after it multiplies the formula by
    ``c_t^(1 − k / handover)``: static weights first, the formula alone in the end.
    ``interval`` adapts the time between updates to how fast losses move.

    Deviations from the report: weights are normalised (their sum is a hidden learning rate), kept
    within bounds, and change gradually, also on the way back to the static weights. A task counts
    as seen from ``min_samples`` rows on; others keep their base weight. β is applied when weights
    are read, so it switches at its very step, and multiplies the static weights too.

    Args:
        static: task -> weight, within ``bounds``; start and fallback.
        alpha: task -> factor, > 0; 1 for tasks left out. Names of tasks that do not take part are
            ignored, so that one table serves every choice of tasks.
        beta: ``foundation`` (> 0) before step ``until_step``, ``balance`` (> 0) from it on;
            ``until_step`` None: ``foundation`` throughout.
        normalize: "sum_to_T" scales the seen tasks' weights to sum to their number, or "none".
        min_tasks: tasks that must be seen, >= 1; with fewer the static weights are the target.
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
        beta: Mapping[str, float | None],
        normalize: str = "sum_to_T",
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
        self.foundation, self.balance, self.until_step = self._read_beta(beta)
        for task, factor in alpha.items():
            self.check(
                factor > 0.0 and math.isfinite(factor), f"alpha.{task}", factor, "> 0, finite"
            )
        low, high = bounds
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
        self.interval = None if interval is None else AdaptiveInterval(len(static), **interval)
        self.register_buffer("correction", torch.ones_like(self.base))
        self.register_buffer("updates", torch.tensor(0))

    def _read_beta(self, beta: Mapping[str, float | None]) -> tuple[float, float, int | None]:
        keys = {"foundation", "balance", "until_step"}
        self.check(set(beta) == keys, "beta", dict(beta), f"a mapping of exactly {sorted(keys)}")
        foundation, balance, until_step = beta["foundation"], beta["balance"], beta["until_step"]
        for name, value in (("foundation", foundation), ("balance", balance)):
            self.check(
                value is not None and 0.0 < value < math.inf, f"beta.{name}", value, "> 0, finite"
            )
        self.check(
            until_step is None or until_step >= 0, "beta.until_step", until_step, ">= 0 or null"
        )
        assert foundation is not None and balance is not None
        return foundation, balance, None if until_step is None else int(until_step)

    def due(self, step: int) -> bool:
        """As `Weighting.due`, or when the adaptive interval says so."""
        adapted = None if self.interval is None else self.interval.due(step)
        return super().due(step) if adapted is None else adapted

    def beta(self, step: int) -> float:
        """β at ``step``: foundation before ``until_step``, balance from it on."""
        before = self.until_step is None or step < self.until_step
        return self.foundation if before else self.balance

    def weights(self, step: int) -> Tensor:
        """β(step) · base weights: (T,) float32."""
        return (self.beta(step) * self.base).float()

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        seen = statistics.rows >= self.min_samples
        notes = {
            task: f"{rows:g} rows, {self.min_samples} needed"
            for task, rows in self._named(statistics.rows).items()
            if 0 < rows < self.min_samples
        }
        if int(seen.sum()) < self.min_tasks:
            target = self.static
            reason = f"static weights: {int(seen.sum())} tasks seen, {self.min_tasks} needed"
        else:
            target = torch.where(seen, self._strategic(statistics, seen), old)
            reason = f"inverse {self.collect}, normalize {self.normalize}"
        if self.interval is not None:
            reason += "; " + self.interval.adapt(statistics.step, statistics.loss, seen)
        floor = (old / self.rate_limit).clamp_min(self.low)
        ceiling = (old * self.rate_limit).clamp_max(self.high)
        new = target.clamp(floor, ceiling)
        for task, want, got in zip(self.tasks, target.tolist(), new.tolist(), strict=True):
            if want != got:
                notes[task] = "; ".join(
                    [*filter(None, [notes.get(task)]), f"held, aims {want:.3f}"]
                )
        return Decision(new, f"{reason}; beta {self.beta(statistics.step):g}", notes)

    def _strategic(self, statistics: Statistics, seen: Tensor) -> Tensor:
        """Target base weights (T,); meaningful where ``seen``."""
        losses = self._excess(statistics) if self.collect == "loss" else statistics.relative
        losses = losses.clamp_min(self.loss_floor)
        target = losses[seen].mean() / losses * self.alpha
        if self.normalize == "sum_to_T":
            target = target * seen.sum() / target[seen].sum()
        return target * self._handing_over(target, seen)

    def _handing_over(self, formula: Tensor, seen: Tensor) -> Tensor | float:
        """What is left of the static weights in the formula, (T,) factors."""
        if self.handover == 0:
            return 1.0
        if not int(self.updates):
            self.correction.copy_(torch.where(seen, self.static / formula, 1.0))
        left = 1.0 if self.handover is None else 1.0 - int(self.updates) / self.handover
        self.updates += 1
        return self.correction.cpu() ** max(0.0, left)
