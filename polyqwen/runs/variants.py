"""Which runs are the same recipe with another seed, and what to call the recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.runs.run_folder import RESULTS, RunFolder

SHOWN = 3  # settings in a name
LONGEST = 60  # characters of it
Key = tuple[str, ...]


def group_runs(runs: Sequence[RunFolder]) -> tuple[dict[str, list[RunFolder]], list[str]]:
    """Variants by name, in the runs' order, and notes on runs left out.

    Runs of a study are grouped by its manifest, others by the settings that differ between them,
    apart from the seed, and have their `variant` set. Of several runs with the same settings and
    seed the last finished counts.
    """
    _set_variants([run for run in runs if not run.variant])
    variants: dict[str, list[RunFolder]] = {}
    for run in runs:
        variants.setdefault(run.variant, []).append(run)
    notes = []
    for name, own in variants.items():
        newest = {run.seed: run for run in sorted(own, key=_finished)}
        for run in own:
            if newest[run.seed] is not run:
                kept = newest[run.seed].path
                notes.append(f"{run.path}: {name} with this seed is also in {kept}")
        variants[name] = [newest[seed] for seed in sorted(newest)]
    return variants, notes


def _finished(run: RunFolder) -> float:
    return (run.path / RESULTS).stat().st_mtime


def _set_variants(runs: Sequence[RunFolder]) -> None:
    """Names variants by the settings that differ between the runs."""
    keys = _differing([run.compared_settings for run in runs])
    keys = [key for key in keys if not _follows_the_seed(key, runs)]
    groups: dict[Key, list[RunFolder]] = {}
    for run in runs:
        values = tuple(repr(run.compared_settings.get(key)) for key in keys)
        groups.setdefault(values, []).append(run)
    if len(groups) == 1:
        labels = ["all runs"]
    else:
        first = [own[0].compared_settings for own in groups.values()]
        labels = _by_overrides(groups) or [_by_settings(settings, keys) for settings in first]
        labels = _unique([_cut(label) for label in labels])
    for label, own in zip(labels, groups.values(), strict=True):
        for run in own:
            run.variant = label


def _follows_the_seed(key: str, runs: Sequence[RunFolder]) -> bool:
    """Whether a key such as ``data.seed`` is the seed of each run that has it."""
    having = [run for run in runs if key in run.compared_settings]
    return key.endswith("seed") and all(r.compared_settings[key] == r.seed for r in having)


def _by_overrides(groups: Mapping[Key, list[RunFolder]]) -> list[str] | None:
    """Names made of the overrides that differ; None if these do not tell the groups apart."""
    for own in groups.values():
        if any(run.compared_overrides != own[0].compared_overrides for run in own):
            return None
    given = [own[0].compared_overrides for own in groups.values()]
    keys = _differing(given)
    labels = [_joined({k: v for k, v in g.items() if k in keys}) or "defaults" for g in given]
    return labels if len(set(labels)) == len(labels) else None


def _by_settings(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Targets first: they name a whole part."""
    order = sorted(keys, key=lambda key: not key.endswith("_target_"))
    chosen = {key: settings.get(key, "–") for key in order[:SHOWN]}
    return _joined(chosen) + (", …" if len(order) > SHOWN else "")


def _joined(values: Mapping[str, Any]) -> str:
    shown = []
    for key, value in values.items():
        parts = key.removesuffix("._target_").split(".")
        short = ".".join(parts[-2:] if len(parts) > 2 else parts[-1:])
        plain = str(value).rpartition(".")[2] if key.endswith("_target_") else value
        shown.append(f"{short}={plain}")
    return ", ".join(shown)


def _cut(label: str) -> str:
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def _unique(labels: list[str]) -> list[str]:
    """Numbered where the first settings alone do not tell them apart."""
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: i + 1].count(label)})"
        for i, label in enumerate(labels)
    ]


def _differing(all_values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that do not have the same value everywhere, in order of first sight."""
    keys = dict.fromkeys(key for values in all_values for key in values)
    return [k for k in keys if len({repr(values.get(k)) for values in all_values}) > 1]
