"""A run saved before the modules moved is still evaluated, resumed, exported and loaded.

``tests/fixtures/saved_run`` was made at commit 2b7c038 by ``python train.py`` with `MADE_WITH` and
``run_dir=old_run``, then ``python -m polyqwen export``; ``vectors.json`` has what both models gave
for a few texts by the code of that commit, and ``targets.txt`` every ``_target_`` of its ``conf/``.
"""

import json
import shutil
from csv import DictReader
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from polyqwen.checkpoints.sidecar import read_sidecar
from polyqwen.config.check import checked, load_saved_config
from polyqwen.config.conf import CONF
from polyqwen.config.errors import ConfigError
from polyqwen.config.hydra_guard import CALLBACKS
from polyqwen.config.moved_targets import MOVED, current_target, with_current_targets
from polyqwen.config.nodes import allowed_signature, check_nodes
from polyqwen.inference.model import EmbeddingModel
from polyqwen.runs.resume import resume
from tests.config.test_bad_input import assert_refused, forked
from tests.conftest import ROOT

SAVED = ROOT / "tests" / "fixtures" / "saved_run"
TARGETS = (SAVED / "targets.txt").read_text(encoding="utf-8").split()
CACHE = ".cache/saved_run"
TEXT, VISION = "model.encoder.config.text_config", "model.encoder.config.vision_config"
MADE_WITH = [
    *("experiment=short", "task=[text_pair,ocr]", "weighting=stw", "+metadata.note=fixture"),
    "model.tokens.tokenizer=polyqwen/assets/tiny_tokenizer",
    *("data.source.train_rows=64", "data.source.eval_rows=16", "data.eval_rows=16"),
    *("data.rows_per_task=4", "curriculum.switch_step=2", "curriculum.total_steps=6"),
    *("schedule_steps=2", "validate_every=3", "callbacks.boost.boost_steps=2"),
    *("callbacks.step_log.every=1", "callbacks.weight_updater.every=1", "weighting.eval_steps=2"),
    *(f"{TEXT}.hidden_size=32", f"{TEXT}.intermediate_size=32", f"{TEXT}.num_hidden_layers=1"),
    *(f"{TEXT}.num_attention_heads=2", f"{TEXT}.num_key_value_heads=1"),
    f"{TEXT}.rope_parameters.mrope_section=[2,3,3]",
    *(f"{VISION}.depth=1", f"{VISION}.embed_dim=32", f"{VISION}.num_heads=2"),
    *(f"{VISION}.mlp_ratio=1", f"{VISION}.hidden_size=32", "model.projection.output_size=16"),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, with a cache of its own."""
    monkeypatch.chdir(ROOT)  # its tokenizer is a relative path
    folder = Path(shutil.copytree(SAVED / "run", tmp_path / "old_run"))
    (folder / "checkpoints" / "last.ckpt").symlink_to("last-6.ckpt")  # as the run had it
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(CACHE, f"{tmp_path}/cache"), encoding="utf-8")
    return folder


def saved_vectors(folder: Path) -> None:
    known = json.loads((SAVED / "vectors.json").read_text(encoding="utf-8"))
    vectors = EmbeddingModel.load(folder, device="cpu").encode(known["texts"])
    np.testing.assert_allclose(vectors, np.array(known["vectors"]), atol=1e-6, rtol=0)


def test_it_is_loaded(run: Path) -> None:
    saved_vectors(run)


def test_its_export_is_loaded() -> None:
    saved_vectors(SAVED / "export")


def test_it_is_exported(run: Path, tmp_path: Path) -> None:
    arguments = ["export", str(run), "--to", str(tmp_path / "export")]
    ended = forked("polyqwen/__main__.py", arguments, tmp_path)
    assert ended.code == 0, ended.err[-2000:]
    saved_vectors(tmp_path / "export")


def test_it_is_evaluated(run: Path, tmp_path: Path) -> None:
    ended = forked("evaluate.py", [f"run_dir={run}", f"hydra.run.dir={tmp_path}/hydra"], tmp_path)
    assert ended.code == 0, ended.err[-2000:]
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for part in ("trained", "untrained"):
        for task, then in results[part].items():
            now = metrics[part][task]
            assert now == pytest.approx({key: then[key] for key in now}, abs=1e-5), (part, task)


def test_it_is_resumed(run: Path, tmp_path: Path) -> None:
    new, cache = tmp_path / "new", tmp_path / "cache"
    own = [f"run_dir={new}", f"hydra.run.dir={new}", f"data_cache={cache}", "baseline=false"]
    longer = ["curriculum.total_steps=8", f"resume={run}", "resume_allow=[config]"]
    ended = forked("train.py", [*MADE_WITH, *own, *longer], tmp_path)
    assert ended.code == 0, ended.err[-2000:]
    assert read_sidecar(new / "checkpoints" / "last.ckpt").step == 8
    losses = []
    for folder in (run, new):
        with (folder / "csv" / "metrics.csv").open(encoding="utf-8") as file:
            losses.append([row["train/loss"] for row in DictReader(file) if row["train/loss"]])
    before, after = losses  # what was logged before is carried over
    assert len(before) == 6 and len(after) == 8 and after[:6] == before


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=[*MADE_WITH, f"data_cache={CACHE}", *overrides])


def test_a_recipe_that_has_changed_its_meaning_is_not_gone_on_with(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    checkpoint = str(run / "checkpoints" / "last-6.ckpt")
    cfg = composed(f"run_dir={run.parent}/new", f"resume={run}")
    with pytest.raises(ConfigError) as error:
        resume(cfg, processes=1)
    text = str(error.value)
    assert text.startswith("resume: ") and checkpoint in text and "\n" not in text
    assert "warm-ups end at each loss's own value" in text
    assert text.endswith("start afresh, or go on with resume_allow=[config]")
    cfg = composed(f"run_dir={run.parent}/new", "resume=auto")
    resume(cfg, processes=1)
    assert cfg.ckpt_path is None and "saved before the recipe changed" in caplog.text
    cfg = composed(f"run_dir={run.parent}/new", f"resume={run}", "resume_allow=[config]")
    resume(cfg, processes=1)
    assert cfg.ckpt_path == checkpoint


@pytest.mark.parametrize("target", TARGETS)
def test_every_earlier_target_leads_to_one_of_today(target: str) -> None:
    current = current_target(target)
    assert current_target(current) == current
    if not any(node["_target_"] == current for node in CALLBACKS.values()):  # see `check_hydra`
        assert allowed_signature(current) is not None


def test_no_line_of_the_table_changes_what_is_right_today() -> None:
    for path in CONF.rglob("*.yaml"):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert with_current_targets(node) == node, path
    used = {line for t in TARGETS for line in MOVED if f"{t}.".startswith(f"{line}.")}
    assert used == set(MOVED)


def test_misspelt_and_foreign_targets_stay_refused(run: Path, tmp_path: Path) -> None:
    path = run / "config.yaml"
    text = path.read_text(encoding="utf-8")
    for evil, words in (
        ("polyqwen.callbacks.alarms.Alarm", ("there is no 'Alarm'", "'Alarms'")),
        ("polyqwen.callbacks.alarms.log", ("log is not allowed",)),
        ("polyqwen.callbacks.os.system", ("no 'os'",)),
        ("os.system", ("os.system is not allowed",)),
    ):
        path.write_text(text.replace("polyqwen.callbacks.alarms.Alarms", evil), encoding="utf-8")
        ended = forked("evaluate.py", [f"run_dir={run}", f"hydra.run.dir={tmp_path}/h"], tmp_path)
        assert_refused(ended, ("callbacks.alarms._target_", *words))
        with pytest.raises(ConfigError):
            checked(load_saved_config(path))


def test_a_configuration_of_ones_own_is_told_the_new_path() -> None:
    with pytest.raises(ConfigError, match=r"it is polyqwen\.training\.optimizer\.adamw today"):
        check_nodes({"optimizer": {"_target_": "polyqwen.optimization.adamw"}})
