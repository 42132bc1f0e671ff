"""A `_target_` given on the command line begins its node anew, with the target's own defaults."""

import json
from pathlib import Path

import pytest
import yaml

from tests.config.test_bad_input import assert_refused, forked

LOSSES = "polyqwen.losses"
COSENT = f"losses.text_pair._target_={LOSSES}.cosent.CoSENTLoss"
HUBER = f"{LOSSES}.score_huber.ScoreHuberLoss"
SCORED_TEXT = f"losses.text_pair._target_={LOSSES}.scored_text.ScoredTextLoss"
SHORT = [
    *("task=[text_pair]", "curriculum=single_phase", "curriculum.total_steps=4", "model=tiny_text"),
    *(
        "validate_every=4",
        "data.rows_per_task.text_pair=6",
        "data.source.train_rows=64",
        "baseline=false",
    ),
    *("data.source.eval_rows=16", "weighting=static", "callbacks.step_log.every=1"),
    *(f"callbacks.{name}=null" for name in ("projector", "galleries", "progress")),
]


def composed(tmp_path: Path, *overrides: str, package: str = "losses.text_pair") -> object:
    """What `--cfg job` prints of one node."""
    printed = ["--cfg", "job", "--package", package]
    ended = forked("train.py", [*overrides, *printed], tmp_path)
    assert ended.code == 0, ended.err
    return yaml.safe_load(ended.out)


@pytest.mark.parametrize(
    ("overrides", "rest"),
    [
        ([COSENT], {}),  # not even temperature, which means something else there
        ([COSENT, "losses.text_pair.temperature=0.02"], {"temperature": 0.02}),
        (["losses.text_pair.temperature=0.02", COSENT], {"temperature": 0.02}),
        (["experiment=vipolyqwen", "data.root=x", COSENT], {}),
        ([f"losses.text_pair._target_={HUBER}", "losses.text_pair.delta=0.2"], {"delta": 0.2}),
        ([f"losses.text_pair._target_={HUBER}", "+losses.text_pair.delta=0.2"], {"delta": 0.2}),
        ([f"losses.text_pair={{_target_: {HUBER}, delta: 0.3}}"], {"delta": 0.3}),
        ([COSENT, "~losses.text_pair.score_weight"], {}),
    ],
)
def test_a_loss_of_the_command_line_has_its_own_keys(
    overrides: list[str], rest: dict[str, object], tmp_path: Path
) -> None:
    node = composed(tmp_path, *overrides)
    assert isinstance(node, dict) and node.pop("_target_") in (f"{COSENT.partition('=')[2]}", HUBER)
    assert node == rest


def test_the_same_target_keeps_the_keys_of_the_files(tmp_path: Path) -> None:
    plain = composed(tmp_path)
    assert composed(tmp_path, SCORED_TEXT) == plain and plain["score_gate"] == "weight"


def test_what_a_target_cannot_do_without_is_kept(tmp_path: Path) -> None:
    """For any node: weights of tasks, a head's classes, the keys that are Hydra's."""
    node = composed(
        tmp_path,
        "weighting=stw",
        "weighting._target_=polyqwen.weighting.by_loss.static.StaticWeighting",
        package="weighting",
    )
    assert isinstance(node, dict) and set(node) == {"_target_", "static"}
    node = composed(
        tmp_path,
        "model.pooling._target_=polyqwen.models.pooling.MeanPooling",
        package="model.pooling",
    )
    assert node == {"_target_": "polyqwen.models.pooling.MeanPooling"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([COSENT, "losses.text_pair.score_weight=2"], ("losses.text_pair.score_weight", "CoSENT")),
        ([COSENT, "losses.text_pair.tempratur=2"], ("losses.text_pair.tempratur", "temperature")),
        ([f"{COSENT}s"], ("losses.text_pair._target_", "'CoSENTLoss'")),
    ],
)
def test_a_key_that_the_new_loss_does_not_take_is_refused(
    overrides: list[str], words: tuple[str, ...], tmp_path: Path
) -> None:
    assert_refused(forked("train.py", [*overrides, f"log_dir={tmp_path}"], tmp_path), words, 2)


@pytest.mark.parametrize("loss", ["cosent.CoSENTLoss", "score_huber.ScoreHuberLoss"])
def test_the_only_loss_of_a_task_trains(loss: str, tmp_path: Path) -> None:
    own = [f"losses.text_pair._target_={LOSSES}.{loss}", f"hydra.run.dir={tmp_path}/run"]
    ended = forked("train.py", [*SHORT, *own, f"data_cache={tmp_path}/cache"], tmp_path)
    assert ended.code == 0, (ended.out + ended.err)[-3000:]
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["trained"]) == {
        "text_pair"
    }
    metrics = (tmp_path / "run" / "csv" / "metrics.csv").read_text().splitlines()[0]
    part = {"cosent.CoSENTLoss": "cosent", "score_huber.ScoreHuberLoss": "score_huber"}[loss]
    assert part in metrics and "info_nce" not in metrics
