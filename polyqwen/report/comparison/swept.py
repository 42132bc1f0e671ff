"""Which keys differ between runs, and their values in each of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.report.format_values import yaml_text
from polyqwen.runs.run_folder import RunFolder

SHOWN = 3  # keys in a name of several


def swept_values(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """Key -> its value in each run, of keys that differ between the runs, apart from the seed.

    Keys are those that the command lines gave, where these tell all recipes apart, else those of
    the settings. Values are those of the settings, so that ``1e-3`` and ``0.001`` are one.
    """
    recipes: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    told = all(
        recipes.setdefault(tuple(run.compared_overrides.items()), own) == own
        for run, own in zip(runs, map(_without_seeds, runs), strict=True)
    )
    given = [dict(run.compared_overrides) if told else _without_seeds(run) for run in runs]
    together: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    for key in dict.fromkeys(key for own in given for key in own):
        values = [
            yaml_text(run.settings[key] if key in run.settings else own.get(key, "default"))
            for run, own in zip(runs, given, strict=True)
        ]
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        if len(places) > 1:
            partition = tuple(places[value] for value in values)
            together.setdefault(partition, ([], values))[0].append(key)
    return {_joined(keys): values for keys, values in together.values()}


def _without_seeds(run: RunFolder) -> dict[str, Any]:
    settings = run.compared_settings
    return {k: v for k, v in settings.items() if not (k.endswith("seed") and v == run.seed)}


def _joined(keys: Sequence[str]) -> str:
    """A name of keys that cannot be told apart, parts that are exchanged whole first."""
    order = sorted(keys, key=lambda key: not key.endswith("_target_"))
    more = f" + {len(order) - SHOWN} more" if len(order) > SHOWN else ""
    return " + ".join(order[:SHOWN]) + more


def other_values(
    key: str, swept: Mapping[str, list[str]], runs: Sequence[RunFolder]
) -> list[tuple[str, ...]]:
    """All other keys' values of each run."""
    others = [values for name, values in swept.items() if name != key]
    return list(zip(*others, strict=True)) if others else [()] * len(runs)
