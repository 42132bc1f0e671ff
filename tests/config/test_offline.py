"""A default run talks to nobody: every process is watched by an audit hook that no code evades."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# read by every Python process that has its folder in PYTHONPATH, loader workers and ranks too
WATCH = """
import sys
ASKED = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0,
         "socket.gethostbyname": 0}
NEAR = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None)

def watch(event, args):
    if event not in ASKED:
        return
    address = args[ASKED[event]]
    host = address[0] if isinstance(address, tuple) else address
    local = isinstance(address, (str, bytes)) and event in ("socket.connect", "socket.sendto")
    if host not in NEAR and not local:  # a path is a socket of this machine
        with open(LOG, "a") as file:
            file.write(f"{event} {host}\\n")
        raise OSError(f"{event} to {host} is refused in this test")

with open(LOG + ".seen", "a") as file:
    file.write("x")
sys.addaudithook(watch)
"""
FEW = [
    *("curriculum.total_steps=4", "curriculum.switch_step=2", "validate_every=2"),
    *("data.source.train_rows=64", "data.source.eval_rows=32", "data.rows_per_task=4"),
]


def watched(tmp_path: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], str, int]:
    """The process, what it asked of the network, and how many processes were watched."""
    log = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(f"LOG = {str(log)!r}\n{WATCH}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
    environment |= {"PYTHONPATH": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    asked = log.read_text() if log.is_file() else ""
    return result, asked, len(log.with_name("asked.seen").read_text())


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ((), 1),
        pytest.param(("data.num_workers=1",), 1, marks=pytest.mark.slow),
        pytest.param(("trainer.devices=2",), 3, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_default_run_asks_for_nothing(
    tmp_path: Path, options: tuple[str, ...], processes: int
) -> None:
    own = [f"data_cache={tmp_path}/cache", f"log_dir={tmp_path}/logs", *FEW, *options]
    result, asked, seen = watched(tmp_path, "train.py", *own)
    assert result.returncode == 0, result.stderr[-3000:]
    assert asked == "" and seen >= processes


def test_a_hub_name_does_ask(tmp_path: Path) -> None:
    """So the watch above is not blind; nothing leaves this machine."""
    own = ["model=bge_large", "task=[text_pair]", f"data_cache={tmp_path}/cache", *FEW]
    result, asked, _ = watched(tmp_path, "train.py", *own, f"log_dir={tmp_path}/logs")
    assert result.returncode != 0 and "huggingface.co" in asked
