"""What optional packages need of us: a score to search by, a line where one is missing."""

from pathlib import Path

import pytest

from polyqwen.runs.run_folder import RunFolder


def write_log(folder: Path, text: str) -> Path:
    (folder / "csv").mkdir()
    (folder / "csv" / "metrics.csv").write_text(text)
    return folder


def test_a_sweeper_gets_the_last_validation_score(tmp_path: Path) -> None:
    log = "epoch,step,train/loss,val/score\n0,1,2.0,\n0,1,,0.25\n0,3,,0.5\n0,3,1.0,\n"
    assert RunFolder(write_log(tmp_path, log)).last("val/score") == 0.5


def test_without_a_validation_there_is_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).last("val/score") is None
    log = "epoch,step,train/loss\n0,1,2.0\n"
    assert RunFolder(write_log(tmp_path, log)).last("val/score") is None


def test_wandb_is_asked_for_in_one_line_or_stays_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning.pytorch.loggers.wandb as lightnings

    from polyqwen.tensorboard.wandb_logger import OfflineWandb

    monkeypatch.setenv("WANDB_MODE", "online")
    if not lightnings._WANDB_AVAILABLE:
        with pytest.raises(ValueError, match="pip install wandb"):
            OfflineWandb(tmp_path)
        return
    assert OfflineWandb(tmp_path)._wandb_init["mode"] == "offline"
