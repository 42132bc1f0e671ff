"""The documentation: links lead somewhere, pages are in the site, the reference is complete."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from tests.conftest import ROOT
from tools import configuration_reference
from tools.stage_docs import sources

PAGES = sorted(path for path in sources() if path.suffix == ".md")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page's text without code."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    text = re.sub(r"(?m)^(?: {4}|\t)(?![-*\d]).*$", "", text)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as GitHub makes them."""
    found: dict[str, int] = {}
    for line in FENCE.sub("", (ROOT / page).read_text(encoding="utf-8")).splitlines():
        if heading := re.match(r"#{1,6} (.+)", line):
            text = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading[1]).strip().lower()
            name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            found[name] = found.get(name, -1) + 1
    return {f"{name}-{i}" if i else name for name, n in found.items() for i in range(n + 1)}


def broken(page: Path) -> Iterator[str]:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (ROOT / page.parent / path).resolve() if path else ROOT / page
        if not there.exists():
            yield f"{page}: {target} is not there"
        elif anchor and anchor not in anchors(there.relative_to(ROOT)):
            yield f"{page}: {target}: no such heading"


def test_pages_are_found() -> None:
    assert {Path("README.md"), Path("docs/your_data.md"), Path("examples/README.md")} <= {*PAGES}
    assert sum(len(LINK.findall(prose(page))) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    assert not list(broken(page))


def test_a_broken_link_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.test_docs.ROOT", tmp_path)
    page = Path("page.md")
    text = "# A *b* `c`\n[x](page.md#a-b-c) [y](#d) [z](gone.md) `[w](no.md)` ![v](gone.png)\n"
    (tmp_path / page).write_text(f"{text}    [u](no.md)\n```\n[t](no.md)\n```\n")
    assert [line.split()[1] for line in broken(page)] == ["#d:", "gone.md", "gone.png"]


def test_every_page_is_in_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    assert sorted(map(Path, files(nav))) == sorted([*PAGES, configuration_reference.PAGE])


def files(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from files(value)
    elif isinstance(node, list):
        for value in node:
            yield from files(value)


def test_the_site_has_all_pages_and_a_reference_of_all_options(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.stage_docs", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True)
    staged = {path.relative_to(tmp_path / "site") for path in (tmp_path / "site").rglob("*.md")}
    assert staged == {*PAGES, configuration_reference.PAGE}
    written = (tmp_path / "site" / configuration_reference.PAGE).read_text(encoding="utf-8")
    assert "`losses.text_pair.rank_margin` | `0.05` | `float` | >= 0" in written
    assert "| `eval_steps` | `1` | `int` | optimizer steps between updates" in written  # of a base
    for path in (ROOT / "conf" / "weighting").glob("*.yaml"):
        assert f"### `weighting={path.stem}`" in written


def test_the_pictures_of_concepts_are_drawn_by_the_code(tmp_path: Path) -> None:
    lines = f"import tools.draw_concepts as d; d.IMAGES = d.Path({str(tmp_path)!r}); d.main()"
    subprocess.run([sys.executable, "-c", lines], cwd=ROOT, check=True, capture_output=True)
    drawn = sorted(tmp_path.glob("*.svg"))
    assert len(drawn) == 3
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert all(f"images/{path.name}" in page for path in drawn)
