"""Committed studies say where their recipe is not today's."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.study_pages import (
    MARK,
    OF_STUDY,
    PAGE,
    Recipe,
    differences,
    folders,
    marked,
    page_of_today,
    recipe_of_page,
    recipe_of_today,
)

SAME = Recipe(360, (0, 1), {"base": "", "a": "x=1 y=2"}, 2)
TEXT = "# Study: s\n\nThe lead.\n\n> 2 runs have not begun\n\n## Leaderboard\n\n| a |\n"


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_a_page_of_another_recipe_is_marked(folder: Path) -> None:
    text = (folder / PAGE).read_text(encoding="utf-8")
    advice = "run: python -m tools.study_pages"
    assert text == page_of_today(folder), (
        f"{folder.relative_to(ROOT)} is not as it should be; {advice}"
    )


def test_the_claims_page_is_marked_with_its_steps_and_the_variants_that_were_not_run() -> None:
    claims = ROOT / "docs" / "studies" / "claims"
    page, today = recipe_of_page(claims), recipe_of_today("claims")
    assert page.steps == 240 and len(page.variants) == 11 and today.steps == 360
    (line,) = [t for t in (claims / PAGE).read_text().splitlines() if t.startswith(MARK)]
    assert "240 steps, today 360" in line and "6 of 17 variants were not run" in line
    assert len(folders()) == 4 and OF_STUDY["misleading_real"] == "misleading"


def test_the_same_recipe_has_no_differences_and_loses_its_mark() -> None:
    assert differences(SAME, SAME) == []
    swapped = SAME._replace(variants={"a": "y=2 +x=1", "base": ""})
    assert differences(swapped, SAME) == []
    assert marked(marked(TEXT, "s", ["360 steps"]), "s", []) == TEXT


def test_whatever_differs_is_said() -> None:
    other = Recipe(240, (0, 1, 2), {"base": "", "a": "x=1 y=3", "old": ""}, 1)
    today = SAME._replace(variants=SAME.variants | {"new": "z=1"})
    assert differences(other, today) == [
        "240 steps, today 360",
        "3 seeds, today 2",
        "other overrides in `a`",
        "no variants of today: `old`",
        "1 of 3 variants were not run: `new`",
        "1 claims were tested, today 2",
    ]


def test_the_mark_stands_under_the_lead_and_is_written_once() -> None:
    once = marked(TEXT, "s", ["240 steps, today 360"])
    assert once.split("\n\n")[2] == f"{MARK}`study=s`: 240 steps, today 360."
    assert marked(once, "s", ["240 steps, today 360"]) == once
    assert marked(once, "s", ["3 seeds, today 2"]).count(MARK) == 1
