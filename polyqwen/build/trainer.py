"""The trainer of a run, with its callbacks and loggers, from its configuration."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from hydra.utils import get_class
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from omegaconf import DictConfig, OmegaConf

from polyqwen.build.instantiate import make, make_part
from polyqwen.build.processes import device_count, launched_outside, precision_of
from polyqwen.build.run import run_steps
from polyqwen.checkpoints.callbacks.interruption import SaveWhenInterrupted
from polyqwen.checkpoints.callbacks.run_record import RunRecord
from polyqwen.checkpoints.checkpoint_io import VerifiedCheckpoints
from polyqwen.config.check import resolved
from polyqwen.config.errors import ConfigError
from polyqwen.config.identity import flat_settings, hyperparameters, run_settings
from polyqwen.training.callbacks.rank_agreement import RankAgreement
from polyqwen.training.callbacks.resume import DueValidation, RandomState
from polyqwen.training.fsdp import WholeInEvaluation


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """The trainer with callbacks and loggers; several processes are joined by DDP."""
    steps = run_steps(cfg)
    every = min(cfg.validate_every, steps)
    sharded = cfg.trainer.strategy == "fsdp"
    trainer: pl.Trainer = make_part(
        "trainer",
        cfg.trainer,
        strategy=_strategy(cfg),
        inference_mode=not sharded,  # weights gathered in it could not be trained on later
        precision=precision_of(cfg),
        max_steps=steps,
        # Lightning counts loader batches here, not optimizer steps
        val_check_interval=every * cfg.trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        default_root_dir=cfg.run_dir,
        callbacks=build_callbacks(cfg),
        logger=[make(node) for node in cfg.logger.values() if node],
        plugins=[VerifiedCheckpoints()],
    )
    # its handler of SIGTERM would hold a collective at any moment, on the ranks that were told
    cast(Any, trainer)._signal_connector.register_signal_handlers = lambda: None
    return trainer


def _strategy(cfg: DictConfig) -> Any:
    """How the processes of a run are joined."""
    limit = timedelta(seconds=cfg.process_group_timeout)
    if cfg.trainer.strategy == "fsdp":
        check_sharding(resolved(cfg))
        return ModelParallelStrategy(
            data_parallel_size=int(os.environ["WORLD_SIZE"]),
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=limit,
        )
    if cfg.trainer.strategy == "auto" and launched_outside():
        # Buffers are equal on all ranks by construction; copying rank 0's would hide it if not.
        return DDPStrategy(broadcast_buffers=False, timeout=limit, gradient_as_bucket_view=True)
    return cfg.trainer.strategy


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """All callbacks: those of the configuration between those that every run has."""
    shown = {
        "configuration": OmegaConf.to_yaml(cfg, resolve=True),
        "hyperparameters": hyperparameters(cfg),
    }
    settings = [f"{key} = {value!r}" for key, value in flat_settings(cfg).items()]
    processes = device_count(cfg) * cfg.trainer.num_nodes
    return [
        RankAgreement(settings),
        RunRecord(run_settings(cfg, processes), allow_data="data" in cfg.resume_allow),
        RandomState(cfg.seed),
        DueValidation(validated_steps(cfg)),
        *([WholeInEvaluation()] if cfg.trainer.strategy == "fsdp" else []),
        *(
            make_part(f"callbacks.{name}", node, **(shown if name == "dashboard" else {}))
            for name, node in cfg.callbacks.items()
            if node
        ),
        SaveWhenInterrupted(Path(cfg.run_dir) / "checkpoints"),
    ]


def validated_steps(cfg: DictConfig) -> list[int]:
    """The switch and the end of a run with both phases: what forgetting is measured between."""
    node, phases = cfg.callbacks.get("forgetting"), cfg.curriculum
    if not node or node.task not in cfg.tasks or node.switch_step is None:
        return []
    inside = phases.start_step < node.switch_step < phases.total_steps
    return [node.switch_step, phases.total_steps] if inside else []


def check_sharding(values: Mapping[str, Any]) -> None:
    """Refuses what needs weights outside of a training step, or was not compared with one process.

    Args:
        values: the resolved configuration.

    Raises:
        ConfigError: naming the key and the way out.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise ConfigError(
            "trainer.strategy", "fsdp divides weights among processes; set trainer.devices above 1"
        )
    weighting = values["weighting"]
    if weighting.get("gram") is not None:
        raise ConfigError(
            "weighting.gram",
            "gradients of single tasks are not taken with trainer=fsdp; use trainer=default",
        )
    if get_class(weighting["_target_"]).needs_trusted:  # type: ignore[attr-defined]
        raise ConfigError(
            "weighting", "trusted rows are not looked at with trainer=fsdp; use trainer=default"
        )
    tuning = values["model"].get("tuning")
    if tuning is not None and not get_class(tuning["_target_"]).full:  # type: ignore[attr-defined]
        raise ConfigError(
            "model.tuning",
            "only full is shown to work with trainer=fsdp; use model/tuning=full or "
            "trainer=default",
        )
    mode = (values.get("large_batch") or {}).get("mode", "off")
    if mode not in ("off", "checkpoint"):
        raise ConfigError(
            "large_batch.mode",
            f"{mode} is not shown to work with trainer=fsdp; use large_batch=off or checkpoint",
        )
