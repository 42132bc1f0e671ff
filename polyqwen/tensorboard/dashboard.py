"""What makes TensorBoard readable: charts laid out, the configuration, a row of hyperparameters."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from torch.utils.tensorboard import SummaryWriter

from polyqwen.metrics.gap_reference import reference_gap
from polyqwen.tensorboard.gradient_conflicts import GradientConflicts
from polyqwen.tensorboard.layout import (
    PAIRED,
    REFERENCE_GAP,
    dashboard_layout,
    session_end,
    session_start,
)
from polyqwen.training.callbacks.base import callbacks_of, tensorboard_writers
from polyqwen.training.callbacks.schedules import ScheduleCallback
from polyqwen.training.callbacks.timing import Throughput
from polyqwen.training.module import EmbeddingModule


class Dashboard(pl.Callback):
    """Writes the custom-scalars layout, the configuration as text, and the HParams row of the run.

    The row stands from the first step on. A finished run fills it with ``end/score`` and
    ``end/<task>/<metric>`` of the last test. These tags of their own are never those of the
    untrained model, and sort before all others: the tab shows its first five metrics unasked. A run
    that fails says so in the row. Without TensorBoard there is nothing to do.

    Args:
        configuration: the run's configuration, as YAML.
        hyperparameters: name → value, worth comparing between runs.
    """

    def __init__(
        self,
        configuration: str = "",
        hyperparameters: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        self.configuration, self.hyperparameters = configuration, dict(hyperparameters or {})
        self._started = self._laid_out = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The configuration and the row."""
        assert isinstance(pl_module, EmbeddingModule)
        values = self.hyperparameters | {"rows_per_step": _rows_per_step(trainer)}
        for writer in tensorboard_writers(trainer):
            writer.add_text(
                "config", f"```yaml\n{self.configuration.rstrip()}\n```", pl_module.step
            )
            _add(writer, session_start(values), pl_module.step)
        self._started, self._laid_out = True, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """The layout, once the first step has shown which schedules there are; the paper's gap."""
        assert isinstance(pl_module, EmbeddingModule)
        if self._laid_out:
            return
        self._laid_out = True
        kinds = _kinds(pl_module)
        paired = any(kind in PAIRED for kind in kinds.values())
        last = pl_module.start_step + trainer.max_steps
        reference = reference_gap(pl_module.start_step, last) if paired else {}
        layout = dashboard_layout(
            kinds,
            _schedules(trainer),
            gradients=pl_module.weighting.gram is not None,
            conflicts=_has(trainer, GradientConflicts),
            throughput=_has(trainer, Throughput),
            reference=reference,
        )
        for writer in tensorboard_writers(trainer):
            writer.add_custom_scalars(layout)
            for name, (steps, values) in reference.items():
                for step, value in zip(steps, values, strict=True):
                    writer.add_scalar(REFERENCE_GAP.format(name), value, step)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end of a run; the test of the untrained model comes before the first step."""
        assert isinstance(pl_module, EmbeddingModule)
        if not self._started:
            return
        for writer in tensorboard_writers(trainer):
            for name, value in final_metrics(trainer, pl_module).items():
                writer.add_scalar(f"end/{name}", value, pl_module.step)
            _add(writer, session_end(success=True), pl_module.step)
            writer.flush()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """A run that was stopped keeps its row, marked as failed."""
        if not self._started:
            return
        for writer in tensorboard_writers(trainer):
            _add(writer, session_end(success=False), trainer.global_step)
            writer.flush()


def final_metrics(trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
    """The score of the last test and what it is the mean of."""
    of_task = {t: main for t in module.tasks if (main := module.metric(t).main) is not None}
    names = ["score", *(f"{task}/{metric}" for task, metric in of_task.items())]
    logged = trainer.callback_metrics
    return {name: float(logged[f"test/{name}"]) for name in names if f"test/{name}" in logged}


def _kinds(module: EmbeddingModule) -> dict[str, str]:
    """What each task's rows are; see `dashboard_layout`."""
    metrics = {task: module.metric(task) for task in module.tasks}
    return {
        task: "scored" if m.scored else "pairs" if m.paired else "labels" if m.main else "texts"
        for task, m in metrics.items()
    }


def _has(trainer: pl.Trainer, kind: type[pl.Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks_of(trainer))


def _schedules(trainer: pl.Trainer) -> list[str]:
    given = [c.values for c in callbacks_of(trainer) if isinstance(c, ScheduleCallback)]
    keys = [key for values in given for key in values if key.startswith("schedule/")]
    groups = [group["name"] for group in trainer.optimizers[0].param_groups]
    rates = [f"lr_{name}" for name in groups if not name.endswith("_no_decay")]
    return [key.removeprefix("schedule/") for key in keys] + rates


def _rows_per_step(trainer: pl.Trainer) -> int:
    """Global rows of the last optimizer step; the first phases may have fewer."""
    loader: Any = trainer.train_dataloader
    return int(loader.batch_sampler.steps.quotas[-1].sum())


def _add(writer: SummaryWriter, summary: Any, step: int) -> None:
    writer._get_file_writer().add_summary(summary, step)  # the way Lightning's logger takes too
