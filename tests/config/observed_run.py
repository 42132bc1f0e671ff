"""What a configuration makes of a run, part by part, and which part another one changes."""

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.config import observed_parts as parts

Values = Mapping[str, Any]


class Part(NamedTuple):
    """A part of a run.

    Attributes:
        reads: keys of the configuration that it is made from.
        look: what there is to see of it.
    """

    reads: tuple[str, ...]
    look: Callable[[Values], Any]


PARTS = {
    "network": Part(("seed", "model", "large_batch", "tasks", "data.patch_size"), parts.of_network),
    "data": Part(("data", "tasks", "model.tokens", "model.sharing", "curriculum"), parts.of_data),
    "losses": Part(("losses", "library", "widths"), parts.of_losses),
    "metrics": Part(("metrics",), parts.of_metrics),
    "weighting": Part(("weighting",), parts.of_weighting),
    "optimizer": Part(("optimizer", "curriculum"), parts.of_optimizer),
    "callbacks": Part(("callbacks", "losses"), parts.of_callbacks),
    "trainer": Part(
        ("trainer", "logger", "validate_every", "curriculum", "run_dir", "resume_allow"),
        parts.of_trainer,
    ),
}


def subtrees(values: Values, keys: tuple[str, ...]) -> list[Any]:
    """What stands under some dotted keys; None where there is nothing."""
    found = []
    for key in keys:
        node: Any = values
        for name in key.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        found.append(node)
    return found


class Observed:
    """A configuration's parts, each looked at once.

    Args:
        values: resolved.
    """

    def __init__(self, values: Values) -> None:
        self.values = values
        self._seen: dict[str, Any] = {}

    def part(self, name: str) -> Any:
        """What there is to see of one part."""
        if name not in self._seen:
            self._seen[name] = PARTS[name].look(self.values)
        return self._seen[name]

    def changed_by(self, values: Values) -> tuple[str, str] | None:
        """The first part that differs under other values, and how; None if none does."""
        for name, part in PARTS.items():
            if subtrees(values, part.reads) != subtrees(self.values, part.reads):
                seen = _look(part, values)
                if repr(seen) != repr(self.part(name)):
                    return name, seen if isinstance(seen, str) else ""
        return None


def _look(part: Part, values: Values) -> Any:
    """What is seen, or the one line with which it is refused."""
    state = random.getstate(), np.random.get_state()
    try:
        return part.look(values)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
