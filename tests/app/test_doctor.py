"""The doctor: a healthy machine is ready, each ill is named with its remedy, nothing is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyqwen.app.commands.doctor import diagnose, line
from polyqwen.app.commands.doctor_machine import (
    check_clock,
    check_folder,
    check_hub,
    check_open_files,
    check_shared_memory,
    check_temporary,
    check_threads,
)
from polyqwen.app.commands.doctor_packages import (
    NEEDED,
    PINS,
    check_package,
    check_torchvision,
    pins_of,
)
from tests.conftest import ROOT


def doctor(*arguments: str, bare: bool = False) -> subprocess.CompletedProcess[str]:
    """As a user calls it; bare, without any package."""
    command = [sys.executable, *(["-S"] if bare else []), "-m", "polyqwen", "doctor", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_this_machine_is_ready(tmp_path: Path) -> None:
    ended = doctor("--log-dir", str(tmp_path / "logs"))
    assert ended.returncode == 0 and ended.stdout.endswith("\nready\n"), ended.stdout + ended.stderr
    for what in ("torch: ", "backends: gloo", f"folder {tmp_path / 'logs'}: writable", "TMPDIR"):
        assert what in ended.stdout
    assert not list(tmp_path.iterdir())  # it leaves nothing behind


def test_without_any_package_it_still_speaks() -> None:
    ended = doctor("--json", bare=True)
    report = json.loads(ended.stdout)
    assert ended.returncode == 1 and not report["ok"]
    stopped = {f["what"]: f for f in report["findings"] if f["level"] == "stop"}
    assert set(NEEDED) <= set(stopped)
    assert stopped["torch"]["way_out"] == "reinstall torch" or "pip" in stopped["torch"]["way_out"]


def test_a_folder_that_cannot_be_written_stops(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = check_folder(tmp_path / "file" / "logs")
    assert finding.level == "stop" and "cannot be written" in finding.found and finding.way_out
    assert check_folder(tmp_path / "a" / "b").level in ("ok", "warn")
    ended = doctor("--log-dir", str(tmp_path / "file"))
    assert ended.returncode == 1 and "STOP folder" in ended.stdout


@pytest.mark.parametrize(
    ("name", "there", "pin", "level", "words"),
    [
        ("torch", "2.13.0+cpu", "2.13.0", "ok", "2.13.0+cpu"),
        ("torch", "2.14.0", "2.13.0", "warn", "tested with 2.13.0"),
        ("torch", "2.9.1", "2.13.0", "warn", "below 2.10"),
        ("lightning", "2.6.3", "2.6.6", "stop", "steals credentials"),
        ("lightning", "2.6.5", "2.6.6", "warn", "below 2.6.6"),
        ("pillow", None, "13.0.0", "stop", "not installed"),
        ("rich", "15.0.0", None, "ok", "15.0.0"),
    ],
)
def test_versions(name: str, there: str | None, pin: str | None, level: str, words: str) -> None:
    finding = check_package(name, there, pin)
    assert finding.level == level and words in finding.found
    assert bool(finding.way_out) is (level != "ok")


def test_the_pins_are_those_of_the_repository() -> None:
    pins = pins_of(PINS)
    assert set(NEEDED) <= set(pins) and pins["lightning"] == "2.6.6"
    assert pins_of(Path("nowhere")) == {}
    lock = (ROOT / "requirements.lock").read_text()
    for name, version in pins.items():
        assert f"{name}=={version} " in lock, f"run make lock: {name} {version} is not in it"
    assert lock.count("--hash=sha256:") > 1000 and "://" not in lock


def test_ills_of_a_machine() -> None:
    assert check_torchvision("0.28.0", "2.13.0+cpu").level == "note"
    assert "does not belong" in check_torchvision("0.21.0", "2.13.0").found
    assert check_threads("8", 2).way_out.startswith("OMP_NUM_THREADS=2")
    assert check_threads(None, 2).level == check_threads("2", 2).level == "ok"
    assert "shm-size" in check_shared_memory(64 * 2**20).way_out
    assert check_shared_memory(2**33).level == "ok"
    assert "ulimit" in check_open_files(256).way_out and check_open_files(-1).level == "ok"
    assert check_clock(0.0).level == "warn"


def test_another_file_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    other = Path("/dev/shm")
    if not other.is_dir() or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system")
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    assert "another file system" in check_temporary(tmp_path).found
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert "on the runs' file system" in check_temporary(tmp_path).found


def test_the_hub_and_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    (tmp_path / "hub" / "models--BAAI--bge-large-en-v1.5").mkdir(parents=True)
    first, second = map(line, check_hub())
    assert "BAAI/bge-large-en-v1.5; offline" in first and "model=tiny needs none" in first
    assert "HF_TOKEN is set" in second and "hf_something" not in first + second


def test_a_launchers_leftover_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    (finding,) = [f for f in diagnose([tmp_path]) if f.what == "launcher"]
    assert finding.level == "warn" and "torchrun" in finding.way_out
