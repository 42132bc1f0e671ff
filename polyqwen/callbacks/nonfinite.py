"""Skips steps whose gradients are not finite, and stops a run that has nothing else."""

import logging
import math

import lightning.pytorch as pl
from torch.optim import Optimizer

from polyqwen.module import EmbeddingModule

log = logging.getLogger(__name__)


class NonFiniteGuard(pl.Callback):
    """Looks at the gradient norm before every optimizer step.

    A norm that is not finite makes the step a no-op: gradients are set to None, since zeros would
    still move AdamW. Under DDP gradients are reduced before, so all ranks decide alike.

    Args:
        max_bad_steps: so many skipped steps in a row stop the run with an error, >= 1.
    """

    def __init__(self, max_bad_steps: int = 10) -> None:
        if max_bad_steps < 1:
            raise ValueError(f"nonfinite.max_bad_steps must be at least 1, got {max_bad_steps}")
        self.max_bad_steps = max_bad_steps
        self.in_a_row = 0
        self.total = 0

    def state_dict(self) -> dict[str, int]:
        """Counters for the checkpoint."""
        return {"in_a_row": self.in_a_row, "total": self.total}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Counters from the checkpoint."""
        self.in_a_row, self.total = state_dict["in_a_row"], state_dict["total"]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Skips the step if it must be."""
        assert isinstance(pl_module, EmbeddingModule)
        norm = pl_module.measure_gradients()
        if math.isfinite(norm):
            self.in_a_row = 0
            return
        for parameter in pl_module.parameters():
            parameter.grad = None
        self.in_a_row += 1
        self.total += 1
        log.warning(
            "step %d skipped: gradient norm %s (%d in a row, %d in all)",
            trainer.global_step,
            norm,
            self.in_a_row,
            self.total,
        )
        for logger in trainer.loggers:
            logger.log_metrics({"train/skipped_steps": self.total}, step=trainer.global_step)
        if self.in_a_row >= self.max_bad_steps:
            raise RuntimeError(
                f"{self.in_a_row} steps in a row had gradients that are not finite (last at step "
                f"{trainer.global_step}); lower optimizer.backbone_lr, raise the temperature, or "
                "look at the data"
            )
