"""What a study consists of: variants × seeds, each a run of train.py with a folder of its own."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from polyqwen.config.conf import options_of
from polyqwen.config.errors import ConfigError
from polyqwen.report.comparison.claims import read_claim

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
FIXED = ("seed", "run_dir", "hydra.run.dir", "study", "ckpt_path", "resume")  # set by the study


class Job(NamedTuple):
    """One run of a study."""

    variant: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]  # without those that name the folder

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.variant} seed {self.seed}"


class Study:
    """Named variants of one recipe, each with the same seeds.

    Args:
        name: of the study.
        folder: its folder below ``log_dir``, with one folder per variant and seed.
        variants: name -> the overrides that make it.
        seeds: of each variant, different ones, >= 0.
        jobs: runs at a time, >= 1.
        baseline: variant that the others are compared with.
        common: overrides of all variants, before the variants' own.
        claims: name -> ``text``, ``with`` a variant and ``without`` another, ``metric`` (see
            `polyqwen.runs.run_folder.RunFolder.value_of`), and ``metric_without`` for the other.
        every: group whose options are variants too, so that a new file is compared; None: no group.
        every_except: options of it that are not, beside those that `variants` has.

    Raises:
        ValueError: a value is out of range, or a variant is named that is not there.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        variants: Mapping[str, Sequence[str]],
        baseline: str,
        seeds: Sequence[int] = (0, 1),
        jobs: int = 1,
        common: Sequence[str] = (),
        claims: Mapping[str, Mapping[str, str | None]] | None = None,
        every: str | None = None,
        every_except: Sequence[str] = (),
    ) -> None:
        if every is not None:
            options = options_of(every)
            if not options:
                raise ValueError(f"study.every is {every}, but conf has no such group")
            left = (option for option in options if option not in (*variants, *every_except))
            variants = {**variants, **{option: [f"{every}={option}"] for option in left}}
        for word in (name, *variants):
            if not NAME.fullmatch(word):
                raise ValueError(f"study: {word!r} names a folder; use letters, digits, _ . -")
        if baseline not in variants:
            known = ", ".join(variants) or "none"
            raise ValueError(
                f"study.baseline is {baseline}, which is no variant; there are {known}"
            )
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError(f"study.seeds must be different numbers >= 0, got {list(seeds)}")
        if jobs < 1:
            raise ValueError(f"study.jobs must be at least 1, got {jobs}")
        self.name, self.folder, self.baseline = name, folder, baseline
        self.variants = {key: list(own) for key, own in variants.items()}
        self.seeds, self.jobs, self.common = list(seeds), jobs, list(common)
        self.claims = {key: dict(fields) for key, fields in (claims or {}).items()}
        for key, fields in self.claims.items():
            claim = read_claim(key, fields)
            for variant in filter(None, (claim.treated, claim.control)):
                if variant not in self.variants:
                    raise ValueError(f"study.claims.{key} names {variant!r}, which is no variant")

    def plan(self, folder: Path, given: Sequence[str]) -> list[Job]:
        """All runs, seed by seed, so that a study that is stopped early has whole seeds.

        Args:
            folder: of the study.
            given: overrides of the user's command line, which hold for all runs.

        Raises:
            ConfigError: one of them is set by the study, or by a variant.
        """
        own = [override for override in given if not key_of(override).startswith("study")]
        for override in (*own, *self.common, *(o for v in self.variants.values() for o in v)):
            if key_of(override) in FIXED:
                raise ConfigError(override, "is set by the study", "use study.seeds or log_dir")
        for override in own:
            for name, variant in self.variants.items():
                if key_of(override) in map(key_of, variant):
                    raise ConfigError(override, f"would undo variant {name}", "leave it out")
        return [
            Job(
                variant=name,
                seed=seed,
                folder=folder / name / f"seed_{seed}",
                overrides=(*self.common, *own, *overrides, f"seed={seed}"),
            )
            for seed in self.seeds
            for name, overrides in self.variants.items()
        ]


def key_of(override: str) -> str:
    """What an override sets: ``+a.b=1`` gives ``a.b``, ``~a`` gives ``a``."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].strip()
