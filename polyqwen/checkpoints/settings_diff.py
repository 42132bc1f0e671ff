"""What a checkpoint tells of its run, compared with another run."""

import json
from collections.abc import Mapping
from typing import Any

RUN = "run"  # its key in a checkpoint
LAST = "last.ckpt"  # of a run's checkpoints
SHOWN = 6  # differences in a message


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they come back from a JSON file."""
    loaded: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return loaded


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``key: then → now`` of every value that changed; – stands for none."""
    return [
        f"{key}: {_shown(then.get(key, '–'))} → {_shown(now.get(key, '–'))}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key, "–") != now.get(key, "–")
    ]


def listed(changes: list[str]) -> str:
    """The first ones, and how many more there are."""
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return "; ".join(changes[:SHOWN]) + more


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
