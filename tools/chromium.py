"""Headless Chromium, spoken to over a pipe: pages opened, asked, and photographed.

The DevTools protocol as JSON between zero bytes on file descriptors 3 and 4, so nothing but the
standard library and a Chromium is needed.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",  # WebGL without a GPU, for the projector
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """The program, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page; use it in a ``with`` block.

    Args:
        program: path of the browser; None: the first found.
        wait: seconds to wait for an answer.

    Raises:
        ValueError: there is no Chromium.
    """

    def __init__(self, program: str | None = None, wait: float = 90.0) -> None:
        path = program or find_chromium()
        if path is None:
            raise ValueError(f"none of {', '.join(NAMES)} is installed")
        self.program, self.wait = path, wait
        self.problems: list[str] = []  # exceptions and errors of the console
        self.requests: list[str] = []  # addresses that the page asked for
        self._number, self._rest, self._loaded = 0, b"", False
        self._session: str | None = None

    def __enter__(self) -> "Chromium":
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        ends = (read_there, write_there)

        def place() -> None:  # in the child: descriptors 3 and 4, wherever the pipes lay
            high = [os.dup2(end, 100 + i) for i, end in enumerate(ends)]
            for i, end in enumerate(high):
                os.dup2(end, 3 + i)

        self._process = subprocess.Popen(
            [self.program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=place,
            start_new_session=True,
        )
        for end in ends:
            os.close(end)
        self._in, self._out = write_here, read_here
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for end in (self._in, self._out):
            os.close(end)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, address: str, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Loads a page in a window of the given size and colour scheme."""
        self.resize(width, height)
        scheme = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self._navigate("about:blank")  # another fragment of the same page loads nothing
        self.problems, self.requests = [], []
        self._navigate(address)

    def _navigate(self, address: str) -> None:
        self._loaded = False
        self.send("Page.navigate", url=address)
        until = time.monotonic() + self.wait
        while not self._loaded:
            self._receive(until)

    def resize(self, width: int, height: int) -> None:
        """Another size of the window."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page.

        Raises:
            RuntimeError: it threw.
        """
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 60.0) -> None:
        """Waits until an expression is true.

        Raises:
            TimeoutError: it was not in time.
        """
        end = time.monotonic() + seconds
        while not self.ask(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds:g} s: {expression}")
            time.sleep(0.25)

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer.

        Raises:
            RuntimeError: the browser refused it, or ended.
            TimeoutError: no answer came.
        """
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        text = json.dumps(message).encode() + b"\0"
        while text:
            text = text[os.write(self._in, text) :]
        until = time.monotonic() + self.wait
        while True:
            answer = self._receive(until)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no answer from {self.program} within {self.wait:g} s")
            more = os.read(self._out, 1 << 16)
            if not more:
                raise RuntimeError(f"{self.program} has ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, content: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(content["exceptionDetails"])[:500])
        elif event == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning"):
            self.problems.append(json.dumps(content["args"])[:500])
        elif event == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.problems.append(content["entry"]["text"])
