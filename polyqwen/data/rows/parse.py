"""From what a cell of a row holds to a checked text, number, conversation or table of labels."""

import math
import re
import reprlib
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from polyqwen.data.rows.types import RowError

MAX_NEGATIVES = 1000  # of a row
MAX_NUMBERS = 65_536  # of a vector
# C0 and C1 but for tab, line feed and carriage return: a terminal obeys them, a reader sees nothing
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def text_of(value: Any, column: str, where: str) -> str:
    """A text without white space at its ends, control characters replaced by spaces; "" for null.

    Raises:
        RowError: it is no text, number or date, or holds half of a surrogate pair.
    """
    if value is None:
        return ""
    nested = isinstance(value, bool | bytes | list | tuple | Mapping)
    if nested or (isinstance(value, float) and not math.isfinite(value)):
        raise _wrong(value, column, where, "must be a text")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"{column} has half of a surrogate pair, \\u{ord(text[error.start]):x}"
        raise RowError(where, "half a character", what, column) from error
    return CONTROL.sub(" ", text).strip()


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def image_of(value: Any, column: str, where: str) -> str | None:
    """The path of a picture as it stands; None for null and for an empty text."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _wrong(value, column, where, "must be the path of a picture")
    text_of(value, column, where)
    return value


def number_of(value: Any, column: str, where: str) -> float:
    """A finite number, also from a text that spells one."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        what = f"{column}={brief(value)} is not a number"
        raise RowError(where, "no number", what, column) from error
    if not math.isfinite(number):
        what = f"{column}={brief(value)} is not a finite number"
        raise RowError(where, "no number", what, column)
    return number


def score_of(value: Any, column: str, where: str) -> float:
    """A number in [0, 1]."""
    score = number_of(value, column, where)
    if not 0.0 <= score <= 1.0:
        what = f"{column}={brief(value)} lies outside [0, 1]; rescale it"
        raise RowError(where, "score outside [0, 1]", what, column)
    return score


def vector_of(value: Any, column: str, where: str) -> tuple[float, ...]:
    """A list of finite numbers, not all of them zero, brought to unit norm."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_NUMBERS:
        raise _wrong(value, column, where, f"must be a list of 1 to {MAX_NUMBERS:,} numbers")
    try:
        vector = np.array(value, dtype=np.float64)  # (K,)
    except (TypeError, ValueError, OverflowError):
        vector = np.empty((0, 0))
    if vector.ndim != 1:
        raise _wrong(value, column, where, "must be a list of numbers")
    if len(bad := np.flatnonzero(~np.isfinite(vector))):
        what = f"{column}[{bad[0]}]={brief(value[bad[0]])} is not a finite number"
        raise RowError(where, "no number", what, column)
    if not (largest := np.abs(vector).max()):
        raise RowError(where, "zero vector", f"{column} is all zeros: it has no direction", column)
    vector /= largest  # before squares could overflow
    return tuple((vector / np.linalg.norm(vector)).tolist())


def negatives_of(value: Any, column: str, where: str) -> list[str]:
    """A list of texts, none of them empty; null is an empty list."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_NEGATIVES:
        what = f"must be a list of at most {MAX_NEGATIVES} texts"
        raise _wrong(value, column, where, what)
    texts = [text_of(item, column, where) for item in value]
    if any(is_blank(text) for text in texts):
        raise RowError(where, "empty", f"a text of {column} is empty", column)
    return texts


def conversation_of(value: Any, names: tuple[str, str], column: str, where: str) -> tuple[str, str]:
    """All before the last answer, and the last answer.

    Args:
        value: a list of {question, answer}.
        names: of the question and of the answer inside a turn.
    """
    turns = value if isinstance(value, list) else []
    if not turns or not all(isinstance(t, Mapping) and all(n in t for n in names) for t in turns):
        what = f"must be a non-empty list of {{{names[0]}, {names[1]}}}"
        raise _wrong(value, column, where, what)
    texts = [[text_of(turn[name], column, where) for name in names] for turn in turns]
    history = [f"{question}\n{answer}" for question, answer in texts[:-1]]
    return "\n".join([*history, texts[-1][0]]), texts[-1][1]


def labels_of(value: Any, column: str, where: str, label: str | None = None) -> dict[str, str]:
    """Label -> class; a label that is null is left out.

    Args:
        value: a mapping, or the class alone.
        column: its name, for messages.
        where: the row, for messages.
        label: the label that a class alone is of; None takes mappings only.
    """
    if value is None:
        return {}
    if label is not None and isinstance(value, str | int):
        value = {label: value}
    if not isinstance(value, Mapping):
        raise _wrong(value, column, where, "must map labels to classes")
    return {
        text_of(label, column, where): str(name)
        if isinstance(name, bool)
        else text_of(name, column, where)
        for label, name in value.items()
        if name is not None
    }


def brief(value: Any) -> str:
    """A value for a message: on one line, not too long, of any depth."""
    try:
        return _BRIEF.repr(value)
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        return f"a {type(value).__name__}"


def names_of(record: Mapping[str, Any]) -> str:
    """The columns of a row for a message, the first few of many."""
    names = sorted(map(str, record))[:12]
    cut = [CONTROL.sub("?", " ".join(name.split()))[:40] for name in names]
    more = ", …" if len(record) > len(names) else ""
    return ", ".join(cut).encode(errors="replace").decode() + more


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60
_BRIEF.maxlevel = _BRIEF.maxlist = _BRIEF.maxdict = 3


def _wrong(value: Any, column: str, where: str, what: str) -> RowError:
    return RowError(where, "wrong type", f"{column} {what}, got {brief(value)}", column)
