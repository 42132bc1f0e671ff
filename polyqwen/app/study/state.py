"""What is on disk of a study: its manifest, finished runs, and a lock against a second process."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polyqwen.app.study.plan import Job, Study
from polyqwen.atomic_files import write_json
from polyqwen.config.identity import comparable_settings
from polyqwen.runs.find import MANIFEST
from polyqwen.runs.run_folder import RunFolder

SHOWN = 4  # differences named


def finished(job: Job, cfg: DictConfig) -> bool:
    """Whether the run is done, with this configuration.

    Raises:
        ValueError: its folder holds the results of another configuration.
    """
    run = RunFolder(job.folder)
    if not run.finished:
        return False
    try:
        found = run.config
    except ValueError as error:
        path = job.folder / "config.yaml"
        raise ValueError(f"{path} is damaged; remove the folder of this run") from error
    if changed := differences(cfg, found):
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise ValueError(
            f"{job.folder} is finished with another configuration, {'; '.join(changed[:SHOWN])}"
            f"{more}; give another study.name, or remove it"
        )
    return True


def differences(wanted: DictConfig, found: Mapping[str, Any]) -> list[str]:
    """``key: found instead of wanted`` for every setting that makes two runs different ones."""
    first, second = (comparable_settings(c, Path(str(c["run_dir"]))) for c in (wanted, found))
    keys = {k for k in first | second if first.get(k, "–") != second.get(k, "–")} - {"log_dir"}
    return [f"{k}: {second.get(k, '–')} instead of {first.get(k, '–')}" for k in sorted(keys)]


def clear(folder: Path) -> None:
    """Removes what an interrupted run left."""
    if folder.exists():
        shutil.rmtree(folder)


def write_manifest(
    folder: Path,
    study: Study,
    jobs: Sequence[Job],
    given: Sequence[str],
    errors: Mapping[Job, str],
) -> None:
    """The plan, and what went wrong, for the leaderboard and for whoever reads the folder."""
    runs = [
        {
            "variant": job.variant,
            "seed": job.seed,
            "folder": str(job.folder.relative_to(folder)),
            **({"error": errors[job]} if job in errors else {}),
        }
        for job in jobs
    ]
    manifest = {
        "name": study.name,
        "baseline": study.baseline,
        "seeds": study.seeds,
        "jobs": study.jobs,
        "common": study.common,
        "given": list(given),
        "variants": study.variants,
        "claims": study.claims,
        "runs": runs,
    }
    write_json(folder / MANIFEST, manifest)


class Lock:
    """Holds a study's folder until this process *and its runs* have ended.

    Runs inherit the file: after a kill that leaves one behind, nobody writes beside it. The lock
    goes with the processes, however they end.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)

    def take(self) -> bool:
        """Whether the folder is ours now."""
        import fcntl

        with suppress(BlockingIOError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def release(self) -> None:
        """Lets it go."""
        os.close(self.descriptor)
