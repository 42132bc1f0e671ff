"""A training step on a GPU, rehearsed without one: all in its place, and nobody waits."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

Rehearse = Callable[..., dict[str, Any]]
TRUSTED = ("exp_gradient", "gate", "lossrag", "nnls_match")
# these look at a number of their own before each step
WAITING = ("calibrated", "stw_learned")
WEIGHTINGS = sorted(p.stem for p in (ROOT / "conf" / "weighting").glob("*.yaml"))


@pytest.fixture(scope="module")
def rehearse(
    folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rehearse]:
    """Takes a step with overrides; see `tests.training.gpu_rehearsal`."""
    run_dir = tmp_path_factory.mktemp("rehearsal")
    base = [f"run_dir={run_dir}", f"data_cache={cache}", "data=folder", f"data.root={folder}"]
    base += ["data.rows_per_task=4", "data.batch_size=null", "model.encoder.attention=packed"]
    command = [sys.executable, "-m", "tests.training.gpu_rehearsal"]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def run(*overrides: str, fault: str | None = None) -> dict[str, Any]:
            line = json.dumps({"overrides": [*base, *overrides], "fault": fault})
            print(line, file=process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            print(answer.pop("trace", ""))  # shown if the test fails
            return answer

        yield run
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("mode", ["off", "checkpoint", "cached"])
def test_a_step_waits_for_nothing(rehearse: Rehearse, mode: str, frozen: bool) -> None:
    options = [f"large_batch={mode}", f"model.encoder.freeze_vision={frozen}"]
    assert rehearse(*options) == {"waits": []}


@pytest.mark.parametrize("name", [name for name in WEIGHTINGS if name not in WAITING])
def test_weightings_gather_on_the_device(rehearse: Rehearse, name: str) -> None:
    trusted = ["data.trusted_rows=4"] if name in TRUSTED else []
    assert rehearse(f"weighting={name}", *trusted) == {"waits": []}


@pytest.mark.parametrize(
    "options",
    [
        ["library=embedding", "weighting=equal"],
        ["model/tuning=lora"],
        ["widths=matryoshka"],
        ["model=tiny_text", "experiment=text_multitask"],
    ],
    ids=" ".join,
)
def test_parts_of_the_model_and_all_losses(rehearse: Rehearse, options: list[str]) -> None:
    assert rehearse(*options) == {"waits": []}


def test_waits_and_tensors_of_two_devices_are_found(rehearse: Rehearse) -> None:
    (line,) = rehearse(fault="copy")["waits"]
    assert "gpu_rehearsal.py" in line
    assert "on the same device" in rehearse(fault="mixed")["error"]
    assert "_local_scalar_dense" in rehearse("weighting=calibrated")["error"]
