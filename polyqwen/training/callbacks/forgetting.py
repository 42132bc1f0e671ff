"""Catastrophic forgetting: a first-phase metric before and after the phase switch."""

import lightning.pytorch as pl

from polyqwen.training.callbacks.base import log_metrics
from polyqwen.training.module import EmbeddingModule


class ForgettingMonitor(pl.Callback):
    """Logs how far a task's validation metric has fallen since the phase switch.

    It reads validations and starts none. The trainer that `polyqwen.build.trainer` makes validates
    at the switch and at the end (`polyqwen.training.callbacks.resume.DueValidation`).

    Args:
        task: the task of the first phase.
        metric: its metric, such as ``spearman``.
        switch_step: absolute optimizer step of the switch; None for no switch.
    """

    def __init__(self, task: str, metric: str, switch_step: int | None) -> None:
        self.task, self.metric, self.switch_step = task, metric, switch_step
        self.at_switch: float | None = None
        self.now: float | None = None
        self.passed = False

    def state_dict(self) -> dict[str, float | bool | None]:
        """The value at the switch, for the checkpoint."""
        return {"at_switch": self.at_switch, "now": self.now, "passed": self.passed}

    def load_state_dict(self, state_dict: dict[str, float | bool | None]) -> None:
        """The value at the switch, from the checkpoint."""
        self.at_switch, self.now = state_dict["at_switch"], state_dict["now"]
        self.passed = bool(state_dict.get("passed", True))

    @property
    def measured(self) -> bool:
        """Whether the task was measured before the switch and after it."""
        return self.at_switch is not None and self.passed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers the last value before the switch; afterwards logs the difference to it."""
        assert isinstance(pl_module, EmbeddingModule)
        value = trainer.callback_metrics.get(f"val/{self.task}/{self.metric}")
        if trainer.sanity_checking or self.switch_step is None or value is None:
            return
        self.now = float(value)
        if pl_module.step <= self.switch_step:
            self.at_switch = self.now
        elif self.at_switch is not None:
            self.passed = True
            fall = {f"val/{self.task}/forgetting": self.at_switch - self.now}
            log_metrics(trainer, fall, pl_module.step)
