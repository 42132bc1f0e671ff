"""Finds runs: single ones, those of a sweep, those of a study."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from polyqwen.runs.run_folder import RunFolder

MANIFEST = "study.json"  # in the folder of a study


def find_runs(paths: Sequence[Path]) -> tuple[list[RunFolder], list[dict[str, Any]]]:
    """All runs in or under the folders, and the manifests of the studies among them.

    Raises:
        ValueError: a folder is missing or has no runs.
    """
    runs: dict[Path, RunFolder] = {}
    manifests = []
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"there is no folder {path}; give folders of runs, a sweep or a study")
        studies = sorted({p.parent for p in path.rglob(MANIFEST)})
        found = [] if studies == [path] else _plain_runs(path, studies)
        for folder in studies:
            manifest = read_manifest(folder)
            manifests.append(manifest)
            found += [
                RunFolder(folder / run["folder"], run["variant"], run["seed"], run.get("error", ""))
                for run in manifest["runs"]
            ]
        if not found:
            raise ValueError(f"{path} has no runs: no folder in it has a config.yaml")
        runs |= {run.path.resolve(): run for run in found}
    if len(manifests) > 1:  # two studies may have a variant of the same name
        for run in runs.values():
            if run.variant:
                run.variant = f"{run.path.parents[1].name}/{run.variant}"
    return list(runs.values()), manifests


def read_manifest(folder: Path) -> dict[str, Any]:
    """The plan of a study as it stands in its folder.

    Raises:
        ValueError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["runs"], list):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the manifest of a study, or is damaged") from error
    return manifest


def _plain_runs(path: Path, studies: Sequence[Path]) -> list[RunFolder]:
    """Folders with a run's configuration, saved by the run or, if it died early, by Hydra."""
    folders = {p.parent for p in path.rglob("config.yaml") if p.parent.name != ".hydra"}
    folders |= {p.parents[1] for p in path.rglob(".hydra/config.yaml")}
    inside = [f for f in folders if not any(f == s or s in f.parents for s in studies)]
    return [RunFolder(folder) for folder in sorted(inside, key=_naturally)]


def _naturally(path: Path) -> list[tuple[int, int, str]]:
    """Sorts job 10 after job 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(p.isdigit()), int(p) if p.isdigit() else 0, p) for p in parts]


def common_folder(runs: Iterable[RunFolder]) -> Path:
    """The folder that holds all runs' folders; a page names them as seen from it."""
    return Path(os.path.commonpath([run.path.absolute().parent for run in runs]))
