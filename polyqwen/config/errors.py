"""Errors that are the user's to mend, in one line: where, what, and what to do instead."""

import re
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

from hydra.errors import InstantiationException
from yaml import MarkedYAMLError

PACKAGE = str(Path(__file__).parents[1])
# by name: their packages are not imported for this
LIGHTNING = "MisconfigurationException"
STOPPED = "TooManyBadSteps"  # a run that cannot go on
MISMATCH = "Error(s) in loading state_dict"


class ConfigError(ValueError):
    """A configuration that cannot be run.

    Args:
        where: dotted path of the key, or the file.
        what: what is wrong with it.
        way_out: what to do instead.
    """

    def __init__(self, where: str, what: str, way_out: str = "") -> None:
        self.where, self.what, self.way_out = where, what, way_out
        super().__init__(f"{where}: {what}" + (f"; {way_out}" if way_out else ""))


def suggest(name: str, choices: Iterable[str]) -> str:
    """The nearest of the choices as a question, or all of them; nothing if there are none."""
    known = sorted(map(str, choices))
    near = get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        return ""
    shown = ", ".join(known[:24]) + (", …" if len(known) > 24 else "")
    return f"choose one of {shown}"


def one_line(message: object) -> str:
    """The message without line breaks."""
    return " ".join(str(message).split())


def user_message(error: BaseException) -> str | None:
    """The one line for a user's error; None for one of the program, which needs its traceback.

    The user's are: `ValueError` raised by this package, `OSError`, what a constructor refuses, a
    checkpoint that does not fit.
    """
    if isinstance(error, MarkedYAMLError):
        return f"not plain YAML: {error}"
    if isinstance(error, InstantiationException):
        return _refused_by_a_constructor(error)
    if isinstance(error, ConfigError | OSError) or type(error).__name__ in (LIGHTNING, STOPPED):
        return str(error)
    if isinstance(error, ValueError):
        worker = re.search(r"DataLoader worker process.*\n((?:.*\n)*)(\w+): (.*)\s*$", str(error))
        if worker:
            return worker.group(3) if _last_file(worker.group(1)).startswith(PACKAGE) else None
        return str(error) if _raised_here(error) else None
    if isinstance(error, UnpicklingError):  # of torch, whose advice is to load it all the same
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"names code ({named.group(1)})" if named else "is damaged, or no checkpoint"
        return f"the checkpoint {what}: only tensors and plain values are loaded"
    if isinstance(error, RuntimeError) and str(error).startswith(MISMATCH):
        detail = [line.strip() for line in str(error).splitlines() if line.strip()][1]
        return f"the checkpoint is of another architecture: {detail[:200]}"
    return None


def _refused_by_a_constructor(error: InstantiationException) -> str | None:
    cause: BaseException = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    lines = str(error).splitlines()
    key = next((x.removeprefix("full_key: ") for x in lines if x.startswith("full_key: ")), "")
    if isinstance(cause, InstantiationException):
        return f"{key or 'configuration'}: {lines[0]}"
    mistakes = ValueError | OSError | ImportError
    if not isinstance(cause, mistakes) and type(cause).__name__ != LIGHTNING:
        return None
    text = str(cause)
    return text if not key or text.startswith(key) else f"{key}: {text}"


def _raised_here(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(PACKAGE)


def _last_file(text: str) -> str:
    files = re.findall(r'File "([^"]+)"', text)
    return files[-1] if files else ""
