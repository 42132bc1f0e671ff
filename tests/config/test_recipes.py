"""Experiments, weightings and curricula in every combination: what is composed means its name."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from polyqwen.app.entry import compose_train
from polyqwen.build.instantiate import make, make_part, weighting_node
from polyqwen.config.conf import CONF, options_of
from polyqwen.config.errors import ConfigError
from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.data.sampling.sampler import StepSampler
from tests.config.test_bad_input import forked

EXPERIMENTS = options_of("experiment")
WEIGHTINGS = [name for name in options_of("weighting") if name != "torchjd"]
CURRICULA = options_of("curriculum")
PHASES = {"phase1": 1, "phase2": 2, "single_phase": 1, "staged": 1, "two_phase": 2}
NO_WARMUPS = ("choose_losses", "text_multitask")
PAPER_ROWS = {
    "text_pair": 3_500_000,
    "ocr": 1_500_000,
    "vqa_single": 1_500_000,
    "vqa_multi": 1_000_000,
}


@cache
def values_of(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose_train(["++data.root=x", "run_dir=x", *overrides])[1]


def curriculum_of(values: dict[str, Any]) -> Curriculum:
    shares = {name: node["share"] for name, node in values["tasks"].items()}
    return make_part("curriculum", values["curriculum"], shares=shares)


def means_what_it_says(experiment: str, weighting: str, curriculum: str) -> None:
    values = values_of(
        *(f"experiment={experiment}", f"weighting={weighting}", f"curriculum={curriculum}")
    )
    assert values["name"] == experiment
    # phases
    built = curriculum_of(values)
    has_text = "text_pair" in values["tasks"]
    phases = PHASES[curriculum] if has_text else 1
    assert len(built.phases) == phases, built.phases
    if curriculum != "phase1":
        assert built.total_steps == values["total_steps"]
    if phases == 2 or curriculum == "phase1":
        assert built.phases[0].stop == values["phase1_steps"]
        assert built.phases[0].shares == tuple(float(t == "text_pair") for t in values["tasks"])
    if curriculum == "phase2":
        assert built.start_step == values["phase1_steps"]
    # warm-ups
    warmups = [node for node in values["callbacks"].values() if node and "LossWarmup" in str(node)]
    assert len(warmups) == (0 if experiment in NO_WARMUPS else 3)
    for node in warmups:
        assert node["steps"] == values["schedule_steps"] == values["phase1_steps"] > 0
    # weights
    target = make({"_target_": "hydra.utils.get_class", "path": target_of(weighting)})
    assert type(make(weighting_node(values))) is target


def target_of(weighting: str) -> str:
    return str(values_of(f"weighting={weighting}")["weighting"]["_target_"])


PAIRS = sorted(
    {(e, "stw", "single_phase") for e in EXPERIMENTS}
    | {(e, "gradnorm", "phase2") for e in EXPERIMENTS}
    | {("vipolyqwen", w, "two_phase") for w in WEIGHTINGS}
    | {("vipolyqwen", "stw_learned", c) for c in CURRICULA}
)


@pytest.mark.parametrize(("experiment", "weighting", "curriculum"), PAIRS)
def test_groups_compose(experiment: str, weighting: str, curriculum: str) -> None:
    means_what_it_says(experiment, weighting, curriculum)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_all_groups_compose(experiment: str) -> None:
    for weighting, curriculum in product(WEIGHTINGS, CURRICULA):
        means_what_it_says(experiment, weighting, curriculum)


def test_every_curriculum_is_in_the_matrix() -> None:
    assert set(PHASES) == set(CURRICULA)


def plain(path: Path) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(loaded, dict)
    return loaded


GROUPS = {  # key of the configuration -> group whose every option has what experiments write there
    "curriculum": "curriculum",
    "weighting": "weighting",
    "model": "model",
    "data": "data",
    "optimizer": "optimizer",
    "trainer": "trainer",
}
ADDABLE = {"trainer.gradient_clip_val"}  # a parameter of every option's class


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_no_experiment_writes_a_key_that_only_some_options_have(experiment: str) -> None:
    written = plain(CONF / "experiment" / f"{experiment}.yaml")
    for key, group in GROUPS.items():
        paths = set(leaves(written.get(key), key)) - ADDABLE
        for option in options_of(group) if paths else ():
            if option == "base":
                continue
            more = ["data.source.datasets={}"] if option == "hub" else []
            there = set(leaves(values_of(f"{group}={option}", *more)[key], key))
            found = {
                p
                for p in paths
                for t in there
                if f"{t}.".startswith(f"{p}.") or p.startswith(f"{t}.")
            }
            assert found == paths, (option, paths - found)


def leaves(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}")
    elif node is not None or path.count("."):
        yield path


@pytest.mark.parametrize("experiment", ["vipolyqwen", "vipolyqwen_stw", "vipolyqwen_large"])
@pytest.mark.parametrize(
    "tasks", ["[ocr]", "[text_pair]", "[text_pair,vqa_multi]", "[topic]", "[instruction,ocr]"]
)
def test_the_papers_recipes_take_any_tasks(experiment: str, tasks: str) -> None:
    values = values_of(f"experiment={experiment}", f"task={tasks}")
    assert set(values["losses"]) == set(values["tasks"]) == set(tasks[1:-1].split(","))
    if "text_pair" in tasks:
        assert values["losses"]["text_pair"]["score_gate"] == "none"


def test_a_misspelt_task_is_not_dropped() -> None:
    with pytest.raises(ConfigError, match=r"losses\.text_piar.*did you mean 'text_pair'"):
        values_of("experiment=vipolyqwen", "+losses.text_piar.score_gate=none")


def test_a_task_of_ones_own_trains_by_the_papers_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = forked("polyqwen/__main__.py", ["new-task", "receipt"], tmp_path)
    assert made.code == 0, made.err
    options = ["experiment=vipolyqwen", "task=[receipt]", "data.root=x", "--cfg", "job"]
    shown = forked("train.py", options, tmp_path)
    assert shown.code == 0 and "receipt:" in shown.out, shown.err


@pytest.mark.parametrize("experiment", ["vipolyqwen", "vipolyqwen_stw", "vipolyqwen_large"])
def test_the_papers_rows_are_passed_over_once(experiment: str) -> None:
    """Drawn twice or never: at most what a step's rounding makes, of 7.5 million rows."""
    values = values_of(f"experiment={experiment}")
    trainer, data = values["trainer"], values["data"]
    batch = data["batch_size"] * trainer["devices"] * trainer["accumulate_grad_batches"]
    assert batch == 480
    sampler = StepSampler(PAPER_ROWS, curriculum_of(values), batch, seed=0)
    drawn = dict(zip(sampler.tasks, sampler.quotas.sum(axis=0).tolist(), strict=True))
    assert sum(drawn.values()) == 7_500_000
    for task, rows in PAPER_ROWS.items():
        assert abs(drawn[task] - rows) <= 4, task
        assert drawn[task] / rows == pytest.approx(1.0, abs=0.005)
    first = sampler.quotas[:2000]
    assert first[:, 0].tolist() == [480] * 2000 and not first[:, 1:].any()
    second = sampler.quotas[2000:].sum(axis=0) / 1e6
    assert second == pytest.approx(np.array([2.54, 1.5, 1.5, 1.0]), abs=1e-4)
