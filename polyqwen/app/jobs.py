"""The jobs of `train` and `evaluate`; heavy packages are imported when a job runs."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polyqwen.app.entry import command


def train() -> None:
    """Runs ``sys.argv`` as a training: [experiment=NAME] [study=NAME] [key=value …]."""
    command("train", _train, _precheck)


def evaluate() -> None:
    """Runs ``sys.argv`` as an evaluation: run_dir=FOLDER [data.root=FOLDER] [split=test]."""
    command("evaluate", _evaluate)


def _train(cfg: DictConfig) -> float | None:
    """One run, one job of a sweep, or all runs of a study; the validation score of the former."""
    if "study" in cfg:
        from polyqwen.app.study.command import run_study

        run_study(cfg, _precheck)
        return None

    from polyqwen.app.signals import exit_when_interrupted

    with exit_when_interrupted(cfg.run_dir):
        from polyqwen.app.launch import launch
        from polyqwen.build.processes import device_count, launched_outside
        from polyqwen.runs.resume import resume

        processes = device_count(cfg)
        resume(cfg, processes * cfg.trainer.num_nodes)
        if processes > 1 and not launched_outside():
            launch(cfg, processes)
        else:
            from polyqwen.app.train import train

            train(cfg)
    from polyqwen.runs.run_folder import RunFolder

    # not the test split: a sweep that chose by it would flatter its best run
    return RunFolder(Path(cfg.run_dir)).last("val/score")


def _precheck(values: dict[str, Any]) -> None:
    """What needs no model: constructors of the light parts, files that must be there."""
    from polyqwen.build.precheck import check_values

    check_values(values)


def _evaluate(cfg: DictConfig) -> None:
    """Metrics, plots and a table of one run."""
    from polyqwen.app.evaluate import evaluate

    evaluate(cfg)
