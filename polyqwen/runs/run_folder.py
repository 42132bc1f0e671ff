"""A run's folder, whose files are read when they are asked for."""

import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polyqwen.config.identity import comparable_settings, flat_settings, of_a_variant
from polyqwen.config.moved_targets import with_current_targets
from polyqwen.runs.checkpoints import CheckpointCandidate, checkpoints_in
from polyqwen.runs.history import METRICS, Series, read_history
from polyqwen.runs.scores import RETENTION, SCORE, Results, main_metric, main_value
from polyqwen.weighting.weight_update import WeightUpdate, read_updates

if TYPE_CHECKING:
    from polyqwen.data.sampling.curriculum import Curriculum

RESULTS = "results.json"  # there once a run has finished
HISTORY_FILE = Path("csv", METRICS)
REPORT = "report"  # folder of what a run keeps for its page
GALLERIES_FILE = Path(REPORT, "galleries.json")
ENVIRONMENT_FILE = Path(REPORT, "environment.json")
PLAN_FILE = Path("plan.json")
NOT_BEGUN = "not begun"
MOST_WARNINGS = 30
Kept = dict[str, dict[str, list[dict[str, Any]]]]  # task → kind → rows


class RunFolder:
    """One run, finished or not. Every file is read at first use, once.

    What is missing or damaged is empty; the configuration alone is needed, by whatever reads it.
    A folder may come from elsewhere, so nothing that its configuration names is called.

    Args:
        path: the folder.
        variant: its recipe's name by a study's manifest; empty outside of a study until
            `polyqwen.runs.variants.group_runs` sets it.
        seed: by the manifest; None takes the configuration's.
        note: what the manifest tells of a run that failed.
    """

    def __init__(
        self, path: Path, variant: str = "", seed: int | None = None, note: str = ""
    ) -> None:
        self.path, self.variant, self.note = path, variant, note
        self._seed = seed

    @property
    def name(self) -> str:
        """What to call it: the folder's last parts, as in ``main/2026-01-31_12-00-00``."""
        parts = [part for part in self.path.absolute().parts if part != "/"]
        return "/".join(parts[-2:])

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, resolved.

        Raises:
            ValueError: there is none, or it is damaged.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{self.path} is not the folder of a run: it has no config.yaml")
        try:
            values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
            return dict(with_current_targets(values))
        except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, OSError) as error:
            raise ValueError(f"{path} is not the configuration of a run, or is damaged") from error

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every value of the configuration by dotted key."""
        return flat_settings(self.config)

    @cached_property
    def overrides(self) -> list[str]:
        """What the command line gave."""
        try:
            text = (self.path / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")
            return [str(item) for item in yaml.safe_load(text) or []]
        except (OSError, yaml.YAMLError, UnicodeError):
            return []

    @cached_property
    def compared_settings(self) -> dict[str, Any]:
        """Settings that make an experiment another one; the seed makes a repetition."""
        folder = Path(str(self.config["run_dir"]))  # the run may have been moved since
        return of_a_variant(comparable_settings(self.config, folder))

    @cached_property
    def compared_overrides(self) -> dict[str, str]:
        """Those of them that the command line gave, as typed there."""
        return of_a_variant(dict(item.lstrip("+").partition("=")[::2] for item in self.overrides))

    @property
    def seed(self) -> int:
        """Runs of one variant differ in nothing else."""
        return int(self.settings["seed"]) if self._seed is None else self._seed

    @property
    def tasks(self) -> list[str]:
        """Tasks in the configuration's order.

        Raises:
            ValueError: the configuration has none.
        """
        try:
            return list(dict(self.config["tasks"]))
        except (KeyError, TypeError, ValueError) as error:
            path = self.path / "config.yaml"
            raise ValueError(f"{path} is not the configuration of a run, or is damaged") from error

    @cached_property
    def curriculum(self) -> "Curriculum | None":
        """None where the configuration has one that is not ours."""
        from polyqwen.data.sampling import curriculum

        made_by = ("Curriculum", "single_phase", "two_phase", "staged")
        # by name, so that a configuration cannot have anything else called
        known = {f"{curriculum.__name__}.{name}": getattr(curriculum, name) for name in made_by}
        try:
            given = dict(self.config["curriculum"])
            make: Any = known[given.pop("_target_")]
            tasks = self.config["tasks"].items()
            made: Curriculum = make(
                {t: float(node.get("share", 1.0)) for t, node in tasks}, **given
            )
            return made
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    @property
    def switches(self) -> list[int]:
        """Steps at which a phase follows another."""
        if self.curriculum is None:
            return []
        first = self.curriculum.start_step
        return [phase.start for phase in self.curriculum.phases[1:] if phase.start > first]

    @cached_property
    def problem(self) -> str:
        """Why the run does not count in a comparison; empty for one that does."""
        if not (self.path / RESULTS).is_file():
            begun = (self.path / "config.yaml").is_file()
            why = "no results.json: interrupted or still running" if begun else NOT_BEGUN
            return self.note or why
        try:
            config = self.config
        except ValueError:
            return "its config.yaml is damaged"
        try:  # whatever a comparison reads
            trained = json.loads((self.path / RESULTS).read_text(encoding="utf-8"))["trained"]
            _ = [dict(metrics) for metrics in trained.values()]
            _ = str(config["run_dir"]), self.seed
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"its files are damaged: {str(error).splitlines()[0][:100]}"
        return ""

    @cached_property
    def results(self) -> dict[str, Any]:
        """``results.json``; empty before the run has ended."""
        return read_json(self.path / RESULTS) or {}

    @property
    def finished(self) -> bool:
        """Whether it left results, which are written in one go: never in part."""
        return read_json(self.path / RESULTS) is not None

    def measured(self, of: str) -> Results:
        """Test metrics by view; empty if they were not measured.

        Args:
            of: ``trained``, ``untrained`` (before training) or ``chance`` (a random order).
        """
        return self.results.get(of) or {}

    @property
    def tested_tasks(self) -> list[str]:
        """Tasks with a main metric on the test split, those only watched left out."""
        trained = self.measured("trained").items()
        return [view for view, metrics in trained if "/" not in view and main_metric(metrics)]

    def score(self, tasks: list[str], of: str = "trained", ablation: str = "") -> float:
        """Mean over tasks of the main metric, as in ``val/score``.

        Args:
            tasks: those to take the mean of.
            of: ``trained``, ``untrained`` or ``chance``.
            ablation: of the queries; a task that it was not measured for makes the mean NaN.
        """
        trained, results = self.measured("trained"), self.measured(of)
        values = [main_value(results, t, main_metric(trained[t]), ablation) for t in tasks]
        return sum(values) / len(values) if values else math.nan

    def value_of(self, metric: str, tasks: list[str]) -> float:
        """A value by its name; higher is better in all of them. NaN where the run lacks it.

        Args:
            metric: ``score``; a task, for its main metric; ``task/metric``; each perhaps followed
                by ``@ablation``; or ``retention``, the first phase's validation metric at the end
                minus at the switch (0: nothing was forgotten).
            tasks: tasks of the score.
        """
        name, _, ablation = metric.partition("@")
        if name == RETENTION:
            forgetting = self.results.get("forgetting") or {}
            return forgetting.get("end", math.nan) - forgetting.get("at_switch", math.nan)
        if name == SCORE:
            return self.score(tasks, ablation=ablation)
        task, _, own = name.partition("/")
        trained = self.measured("trained")
        return main_value(trained, task, own or main_metric(trained.get(task, {})), ablation)

    @property
    def timing(self) -> Mapping[str, float]:
        """``seconds_per_step`` and ``fit_seconds``; empty in runs of old."""
        return self.results.get("timing") or {}

    @cached_property
    def history(self) -> dict[str, Series]:
        """All logged series by key."""
        try:
            return read_history(self.path / HISTORY_FILE)
        except (OSError, ValueError):
            return {}

    def last(self, key: str) -> float | None:
        """The last value logged under a key."""
        series = self.history.get(key)
        return series.values[-1] if series and series.values else None

    @cached_property
    def checkpoints(self) -> list[CheckpointCandidate]:
        """The newest first, then the best one."""
        return checkpoints_in(self.path / "checkpoints")

    @cached_property
    def updates(self) -> list[WeightUpdate]:
        """Updates of the task weights, with reasons."""
        return read_updates(self.path / REPORT / "weight_updates.jsonl")

    @cached_property
    def galleries(self) -> Kept:
        """Queries and what was found for them, as `write_galleries` keeps them."""
        return read_json(self.path / GALLERIES_FILE) or {}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """``evaluation/metrics.json``; empty if `evaluate.py` was not run."""
        return read_json(self.path / "evaluation" / "metrics.json") or {}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The machine that trained; empty if it was not kept."""
        return read_json(self.path / ENVIRONMENT_FILE) or {}

    @cached_property
    def plan(self) -> dict[str, Any]:
        """``plan.json``: the plan printed before the first step; empty in runs without one."""
        return read_json(self.path / PLAN_FILE) or {}

    @cached_property
    def warnings(self) -> list[str]:
        """The last lines of the log that warn, each once."""
        log = self.path / "train.log"
        if not log.is_file():
            return []
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line for line in lines if re.match(r"\S+( \S+)? (WARNING|ERROR|CRITICAL) ", line)]
        return list(dict.fromkeys(found))[-MOST_WARNINGS:]


def read_json(path: Path) -> dict[str, Any] | None:
    """A mapping from a file; None if it is not there, damaged or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
