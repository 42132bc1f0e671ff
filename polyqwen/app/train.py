"""A training run: build, fit, test."""

import json
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from polyqwen.app.console import console, quiet_lightning
from polyqwen.app.report import short, write_after_training
from polyqwen.atomic_files import sweep, write_json, write_text
from polyqwen.build.plan.make import make_plan
from polyqwen.build.plan.types import plain
from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.checkpoints.callbacks.keep import save_last
from polyqwen.checkpoints.sidecar import read_sidecar
from polyqwen.data.tables.splits import Splits
from polyqwen.data.tables.statistics import statistics_table, task_statistics
from polyqwen.report.plan import print_plan
from polyqwen.report.results_table import results_table
from polyqwen.runs.history import METRICS, carry_over
from polyqwen.runs.run_folder import PLAN_FILE
from polyqwen.runs.scores import Results, results_of
from polyqwen.runs.weights import load_weights
from polyqwen.training.callbacks.base import callbacks_of
from polyqwen.training.callbacks.forgetting import ForgettingMonitor
from polyqwen.training.callbacks.timing import StepTimer

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> Results:
    """Trains, tests beside the untrained model, writes ``results.json`` into the run's folder."""
    quiet_lightning()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data, model = build(cfg)
    if cfg.init_from:
        load_weights(model, cfg.init_from)
    elif cfg.curriculum.start_step:
        log.info("starting at step %d from the backbone's weights", cfg.curriculum.start_step)
    trainer, checkpoints = build_trainer(cfg), Path(cfg.run_dir) / "checkpoints"
    if trainer.is_global_zero:  # the others wait for it at their first meeting
        write_text(Path(cfg.run_dir) / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        if cfg.ckpt_path:
            _carry_over(trainer, Path(cfg.ckpt_path))
        for left in sweep(checkpoints):
            log.info("removed %s, which a killed process left half written", left)
        data.prepare_data()
        labels = {name: task.label for name, task in data.tasks.items()}
        console().print(statistics_table(task_statistics(data.splits.tables("train"), labels)))
        _plan(cfg, data.splits)

    untrained: Results = {}
    if cfg.baseline:
        trainer.test(model, datamodule=data, verbose=False)
        untrained = results_of(trainer.callback_metrics)
    timer = StepTimer()
    callbacks_of(trainer).append(timer)
    trainer.fit(model, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
    save_last(trainer, checkpoints)  # also when no save was due at this step
    data.splits.ablations["test"] = list(cfg.ablations)
    trainer.test(model, datamodule=data, verbose=False)
    trained = results_of(trainer.callback_metrics)
    chance = results_of(trainer.callback_metrics, "chance")
    if trainer.is_global_zero:
        folder, forgetting = Path(cfg.run_dir), _forgetting(trainer)
        report: dict[str, Any] = {"trained": trained, "untrained": untrained, "chance": chance}
        report |= {"forgetting": forgetting, "timing": timer.timing()}
        # whole or not there: it is what tells that a run is finished
        write_text(folder / "results.json", json.dumps(report, indent=2) + "\n")
        write_after_training(folder)
        console().print(results_table(trained, untrained, chance))
        if forgetting is not None:
            console().print(
                "{task}, validation {metric}: {at_switch:.3f} at the switch, {end:.3f} at the "
                "end".format(**forgetting)
            )
        console().print(f"run: {cfg.run_dir}")
    return trained


def _plan(cfg: DictConfig, splits: Splits) -> None:
    """Prints what the run will do and keeps it for the page; never the reason for a failure."""
    try:
        plan = plain(make_plan(cfg, splits))
        write_json(Path(cfg.run_dir) / PLAN_FILE, plan)
        print_plan(plan, console())
    except Exception as error:  # whatever it is, the run itself refuses what it cannot do
        log.warning("no plan was made: %s: %s", type(error).__name__, short(error))


def _carry_over(trainer: pl.Trainer, checkpoint: Path) -> None:
    """Logged numbers of the run that this one goes on from, if they lie where a run has them."""
    step = read_sidecar(checkpoint).step
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            folder = Path(logger.log_dir).name
            carry_over(logger, checkpoint.resolve().parents[1] / folder / METRICS, step)


def _forgetting(trainer: pl.Trainer) -> dict[str, Any] | None:
    """What `ForgettingMonitor` saw; None in a run without a switch or a validation before it."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, ForgettingMonitor) and callback.measured:
            return {
                "task": callback.task,
                "metric": callback.metric,
                "at_switch": callback.at_switch,
                "end": callback.now,
            }
    return None
