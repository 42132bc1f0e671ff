"""Marks committed studies whose recipe is not today's: python -m tools.study_pages.

A page of ``docs/studies`` tells of runs that were made with the recipe of their day. Where the
study of the same name in ``conf/study`` has changed since, or not all of it was run, a line under
the page's lead says what differs. A test compares pages with what this makes of them.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from polyqwen.app.study.plan import Study, key_of
from polyqwen.build.instantiate import make
from polyqwen.build.run import run_steps
from polyqwen.config.resolvers import register

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "studies"
PAGE, RUNS = "leaderboard.md", "runs.csv"
OF_STUDY = {"misleading_real": "misleading"}  # a page of the same study on other data
MARK = "> Made with an older recipe than today's "
VARIANT = re.compile(r"^- `([^`]+)`: `([^`]*)`$", re.MULTILINE)
CLAIM = re.compile(r"^## Claims\n\n(.*?)\n\n", re.MULTILINE | re.DOTALL)


class Recipe(NamedTuple):
    """What a study consists of.

    Attributes:
        steps: optimizer steps of the baseline's runs.
        seeds: of the runs.
        variants: name -> overrides, as text.
        claims: how many are tested.
    """

    steps: int
    seeds: tuple[int, ...]
    variants: dict[str, str]
    claims: int


def recipe_of_page(folder: Path) -> Recipe:
    """What the runs of a committed page had."""
    text = (folder / PAGE).read_text(encoding="utf-8")
    with (folder / RUNS).open(encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    (baseline,) = re.findall(r"Baseline: (\S+)\. ", text)
    (steps,) = {int(run["steps"]) for run in runs if run["variant"] == baseline}
    claims = CLAIM.search(text)
    return Recipe(
        steps=steps,
        seeds=tuple(sorted({int(run["seed"]) for run in runs})),
        variants=dict(VARIANT.findall(text)),
        claims=len(claims[1].splitlines()) - 2 if claims else 0,
    )


def recipe_of_today(study: str) -> Recipe:
    """What ``study=NAME`` runs today."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("train", [f"study={study}"]).study)
        planned: Study = make(node | {"folder": study})
        baseline = planned.variants[planned.baseline]
        cfg = compose("train", [*planned.common, *baseline])
    return Recipe(
        steps=run_steps(cfg),
        seeds=tuple(planned.seeds),
        variants={name: " ".join(own) for name, own in planned.variants.items()},
        claims=len(planned.claims),
    )


def differences(page: Recipe, today: Recipe) -> list[str]:
    """What a page has otherwise than today's study, in words; empty for the same recipe."""
    found = []
    if page.steps != today.steps:
        found.append(f"{page.steps} steps, today {today.steps}")
    if page.seeds != today.seeds:
        found.append(f"{len(page.seeds)} seeds, today {len(today.seeds)}")
    shared = [name for name in page.variants if name in today.variants]
    if others := [n for n in shared if _set(page.variants[n]) != _set(today.variants[n])]:
        found.append(f"other overrides in {_listed(others)}")
    if gone := [name for name in page.variants if name not in today.variants]:
        found.append(f"no variants of today: {_listed(gone)}")
    if missing := [name for name in today.variants if name not in page.variants]:
        count = f"{len(missing)} of {len(today.variants)}"
        found.append(f"{count} variants were not run: {_listed(missing)}")
    if page.claims and page.claims != today.claims:
        found.append(f"{page.claims} claims were tested, today {today.claims}")
    return found


def _set(overrides: str) -> set[str]:
    """Overrides whose order does not matter; ``+key`` adds what ``key`` sets."""
    return {f"{key_of(one)}={one.partition('=')[2]}" for one in overrides.split()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def marked(text: str, study: str, differing: Sequence[str]) -> str:
    """The page with a line under its lead that says what differs; without one if nothing does."""
    lines = [line for line in text.split("\n\n") if not line.startswith(MARK)]
    if differing:
        lines.insert(2, f"{MARK}`study={study}`: {'; '.join(differing)}.")
    return "\n\n".join(lines)


def page_of_today(folder: Path) -> str:
    """A committed page as it should be."""
    study = OF_STUDY.get(folder.name, folder.name)
    differing = differences(recipe_of_page(folder), recipe_of_today(study))
    return marked((folder / PAGE).read_text(encoding="utf-8"), study, differing)


def folders() -> list[Path]:
    """Those of all committed studies."""
    return sorted(path.parent for path in PAGES.glob(f"*/{PAGE}"))


def main() -> None:
    """Writes the line into every page."""
    register()
    for folder in folders():
        (folder / PAGE).write_text(page_of_today(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
