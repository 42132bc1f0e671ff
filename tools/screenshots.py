"""Pictures of TensorBoard and of the reports for the docs: python -m tools.screenshots SWEEP.

SWEEP is the folder of a sweep of finished runs, such as docs/tensorboard.md makes one. A
TensorBoard is served on a free port of this machine for as long as it takes; Chromium must be
installed.
"""

import argparse
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from PIL import Image

from polyqwen.app.report import report
from tools.chromium import Chromium

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = 128  # in a picture: a third of the bytes, and nobody sees it
MOST_BYTES = 300_000
SETTLED = 2.0  # seconds without a change
PATIENCE = 60.0


class Shot(NamedTuple):
    """One picture of TensorBoard: its file, the page's address, the window, whose runs."""

    name: str
    page: str
    width: int
    height: int
    sweep: bool = False


SHOTS = (
    Shot("tensorboard", "?tagFilter=%5Eweight%2F&smoothing=0#timeseries", 1500, 1100),
    Shot("tensorboard_custom_scalars", "#custom_scalars&_smoothingWeight=0", 1500, 2960),
    Shot("tensorboard_images", "#images", 1500, 1870),
    Shot("tensorboard_histograms", "#histograms", 1500, 900),
    Shot("tensorboard_projector", "#projector", 1500, 950),
    Shot("tensorboard_hparams", "#hparams", 2350, 400, sweep=True),
)


def main() -> None:
    """Takes all pictures of the first run in the folder and of the sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, help="folder of a sweep of finished runs")
    parser.add_argument("--to", type=Path, default=IMAGES, help="folder to write")
    parser.add_argument("--only", default="", help="part of the names of the pictures wanted")
    parser.add_argument("--suffix", default="", help="put behind the pictures' names")
    given = parser.parse_args()
    run = next((p.parent for p in sorted(given.sweep.glob("*/results.json"))), None)
    if run is None:
        parser.error(f"{given.sweep} has no finished run")
    table = 230 + 36 * len(list(given.sweep.glob("*/results.json")))  # a line each
    with Chromium() as browser:
        for sweep, folder in ((False, run), (True, given.sweep)):
            shots = [s for s in SHOTS if s.sweep is sweep and given.only in s.name]
            if shots:
                with tensorboard(folder) as address:
                    for shot in shots:
                        height = max(shot.height, table) if sweep else shot.height
                        own = shot._replace(name=f"{shot.name}{given.suffix}", height=height)
                        of_tensorboard(browser, address, own, given.to)
        if given.only in "report":
            of_reports(browser, given.sweep, run, given.to)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Serves a folder on this machine alone; gives the address once runs are loaded."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--host", "localhost", "--port", str(port), "--load_fast", "false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        _wait_for_runs(address)
        yield address
    finally:
        server.terminate()
        server.wait()


def _wait_for_runs(address: str) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urlopen(f"{address}/data/plugins_listing", timeout=10) as answer:
                if b'"enabled": true' in answer.read():
                    time.sleep(SETTLED)
                    return
        except OSError:
            pass
        if time.monotonic() > until:
            raise TimeoutError(f"{address} serves no runs after {PATIENCE:g} s")
        time.sleep(0.5)


def of_tensorboard(browser: Chromium, address: str, shot: Shot, out: Path) -> None:
    """One page of TensorBoard, when it has come to rest."""
    browser.open(f"{address}/{shot.page}", shot.width, shot.height)
    time.sleep(5 * SETTLED)  # plugins start one after another, with pauses
    _save(_at_rest(browser), out / f"{shot.name}.png")


def of_reports(browser: Chromium, sweep: Path, run: Path, out: Path) -> None:
    """The run's page light, dark and on a telephone, its failures, and that of the sweep."""
    page, whole = (report(folder).absolute().as_uri() for folder in (run, sweep))
    browser.open(page, 1200, 1330)
    _save(_at_rest(browser), out / "report.png")
    browser.ask("document.documentElement.style.scrollBehavior = 'auto'")
    for anchor, height in (("weights", 900), ("failures", 900)):
        browser.resize(1200, height)
        browser.ask(f"document.getElementById('{anchor}').scrollIntoView()")
        _save(_at_rest(browser), out / f"report_{anchor}.png")
    browser.open(page, 1200, 900, dark=True)
    _save(_at_rest(browser), out / "report_dark.png")
    browser.open(page, 400, 1100)
    _save(_at_rest(browser), out / "report_narrow.png")
    browser.open(whole, 1200, 1250)
    _save(_at_rest(browser), out / "report_sweep.png")


def _at_rest(browser: Chromium) -> bytes:
    """The window as soon as two pictures in a row are equal, or patience ends."""
    before, until = b"", time.monotonic() + PATIENCE / 3
    while time.monotonic() < until:
        now = browser.picture()
        if now == before:
            break
        before = now
        time.sleep(SETTLED)
    return before


def _save(picture: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB" + (" (large)" if size > MOST_BYTES else ""))


if __name__ == "__main__":
    main()
