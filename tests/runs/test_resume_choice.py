"""Which checkpoint a run goes on from, and when it refuses to."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from polyqwen.atomic_files import point
from polyqwen.build.processes import device_count
from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.checkpoints.checkpoint_io import VerifiedCheckpoints
from polyqwen.checkpoints.sidecar import DamagedCheckpoint, sidecar_path
from polyqwen.config.errors import ConfigError
from polyqwen.runs.resume import resume, run_settings_of
from tests.checkpoints.test_checkpoints import DAMAGES
from tests.conftest import Configure
from tests.training.test_resume import SHORT, STW, fit


class Runs:
    """Folders of runs below one, with checkpoints that hold a record and nothing else."""

    def __init__(self, configure: Configure, root: Path) -> None:
        self.configure, self.root = configure, root

    def cfg(self, name: str, *overrides: str) -> DictConfig:
        return self.configure(f"run_dir={self.root / name}", *overrides)

    def save(self, name: str, step: int, *overrides: str, file: str | None = None) -> Path:
        cfg = self.cfg(name, *overrides)
        record = {"settings": run_settings_of(cfg, device_count(cfg))}
        path = self.root / name / "checkpoints" / (file or f"last-{step}.ckpt")
        VerifiedCheckpoints().save_checkpoint({"global_step": step, "run": record}, path)
        if file is None:
            point(path.with_name("last.ckpt"), path.name)
        return path

    def chosen(self, *overrides: str, name: str = "new") -> str | None:
        cfg = self.cfg(name, *overrides)
        resume(cfg, device_count(cfg))
        return cfg.ckpt_path


@pytest.fixture
def runs(configure: Configure, tmp_path: Path) -> Runs:
    return Runs(configure, tmp_path / "logs")


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_off_by_default(runs: Runs) -> None:
    runs.save("a", 5)
    assert runs.chosen() is None


def test_auto_takes_the_newest_of_an_equal_run(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.save("a", 5)
    older = runs.save("b", 3)
    newest = runs.save("b", 6)
    runs.save("b", 4, file="best.ckpt")  # saved later, of an earlier step
    runs.save("c", 9, "seed=3")
    assert runs.chosen("resume=auto") == str(newest)
    assert f"going on with {newest}" in caplog.text
    assert "c: it differs in data.seed: 3 → 0; seed: 3 → 0" in caplog.text
    shutil.rmtree(runs.root / "b")
    assert runs.chosen("resume=auto") == str(runs.root / "a" / "checkpoints" / "last-5.ckpt")
    assert older != newest


def test_auto_finds_its_own_folder(runs: Runs) -> None:
    """A requeued job has the name of the one before."""
    path = runs.save("a", 5)
    assert runs.chosen("resume=auto", name="a") == str(path)


def test_auto_says_that_it_starts_afresh(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    assert runs.chosen("resume=auto") is None
    assert f"no equal run under {runs.root}, starting afresh" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_auto_falls_back_over_damage(
    runs: Runs, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    best = runs.save("a", 2, file="best.ckpt")
    paths = [runs.save("a", step) for step in (4, 6, 8)]
    for left in (1, 0):
        damage(paths[left + 1])
        assert runs.chosen("resume=auto") == str(paths[left])
        warning = next(r for r in caplog.records[::-1] if r.levelname == "WARNING").message
        assert "last-8.ckpt" in warning and f"using {paths[left]} instead" in warning
    damage(paths[0])
    assert runs.chosen("resume=auto") == str(best)
    if damage.__name__ in ("flip", "truncate"):
        damage(best)
        assert runs.chosen("resume=auto") is None
        assert "no checkpoint to use" in caplog.text and "starting afresh" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("key", ["resume", "ckpt_path"])
def test_a_damaged_file_is_refused_by_name(runs: Runs, damage: Any, key: str) -> None:
    path = runs.save("a", 5)
    damage(path)
    with pytest.raises(DamagedCheckpoint, match=r"last-5\.ckpt") as error:
        runs.chosen(f"{key}={path}")
    assert "\n" not in str(error.value)


def test_a_path_names_a_run_or_a_checkpoint(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    first, second = runs.save("a", 5), runs.save("a", 7)
    folder = runs.root / "a"
    assert runs.chosen(f"resume={folder}") == str(second)
    assert runs.chosen(f"resume={first}") == str(first)
    assert runs.chosen(f"ckpt_path={first}", "seed=4") == str(first)
    sidecar_path(second).unlink()
    assert runs.chosen(f"resume={folder}") == str(first)
    assert "last-7.ckpt has no sidecar last-7.ckpt.json" in caplog.text
    sidecar_path(first).unlink()
    with pytest.raises(ConfigError, match=r"whole, of last-7\.ckpt, last-5\.ckpt"):
        runs.chosen(f"resume={folder}")
    for nowhere in (runs.root, "nowhere"):
        with pytest.raises(ConfigError, match="no checkpoint and no folder of a run"):
            runs.chosen(f"resume={nowhere}")


def test_another_configuration_is_refused_unless_allowed(runs: Runs) -> None:
    path = runs.save("a", 5)
    changed = (f"resume={path}", "optimizer.head_lr=1.0", "weighting=static")
    with pytest.raises(ConfigError) as error:
        runs.chosen(*changed)
    assert "optimizer.head_lr: " in str(error.value) and " → 1.0;" in str(error.value)
    assert "more" in str(error.value) and "resume_allow=[config]" in str(error.value)
    assert runs.chosen(*changed, "resume_allow=[config]") == str(path)
    harmless = ("data.num_workers=2", "logger=csv", "callbacks.last.keep=4", "+metadata.a=1")
    assert runs.chosen(f"resume={path}", *harmless) == str(path)


def test_words_that_mean_nothing_are_refused(runs: Runs) -> None:
    with pytest.raises(ConfigError, match="resume_allow: may hold config, data"):
        runs.chosen("resume_allow=[all]")
    with pytest.raises(ConfigError, match="choose one of them"):
        runs.chosen("resume=auto", "ckpt_path=a")


def test_processes_may_change_if_they_share_the_same_rows(runs: Runs) -> None:
    path = runs.save("a", 5, "trainer.devices=2", "trainer.accelerator=cpu", "data.rows_per_task=4")
    one = (f"resume={path}", "trainer.accelerator=cpu")
    assert runs.chosen(*one, "data.rows_per_task=8") == str(path)
    with pytest.raises(ConfigError, match=r"data\.rows_per_task × processes: 8 → 4"):
        runs.chosen(*one, "data.rows_per_task=4")
    path = runs.save(
        "b", 5, "data.batch_size=8", "data.rows_per_task=null", "tasks.ocr.batch_size=6"
    )
    two = (f"resume={path}", "trainer.devices=2", "data.batch_size=4", "data.rows_per_task=null")
    two = (*two, "trainer.accelerator=auto")
    assert runs.chosen(*two, "tasks.ocr.batch_size=3") == str(path)
    with pytest.raises(ConfigError, match=r"tasks\.ocr\.batch_size × processes: 6 → 12"):
        runs.chosen(*two, "tasks.ocr.batch_size=6")


def test_other_data_is_refused_unless_allowed(
    configure: Configure, tmp_path: Path, folder: Path
) -> None:
    data = shutil.copytree(folder, tmp_path / "data")  # moved: still the same data
    fit(configure, tmp_path / "a")
    ckpt = tmp_path / "a" / "6.ckpt"
    resumed = fit(configure, tmp_path / "b", f"data.root={data}", ckpt=ckpt)
    assert resumed.rows
    file = data / "text_pair" / "train.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"text_pair/train: 64 rows \w+ → 63 rows \w+; restore"):
        fit(configure, tmp_path / "c", f"data.root={data}", ckpt=ckpt)
    allowed = (f"data.root={data}", "resume_allow=[data]")
    assert fit(configure, tmp_path / "d", *allowed, ckpt=ckpt).rows


def test_other_micro_batches_are_refused(configure: Configure, tmp_path: Path) -> None:
    fit(configure, tmp_path / "a")
    cfg = configure(*SHORT, *STW, "trainer.accumulate_grad_batches=2")
    parts = build(cfg)
    with pytest.raises(ValueError, match="accumulate_grad_batches=1, this one has 2; keep it"):
        build_trainer(cfg).fit(
            parts.model, datamodule=parts.data, ckpt_path=tmp_path / "a" / "4.ckpt"
        )
