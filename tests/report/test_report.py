"""report.html: every number is in it, nothing is fetched, no text becomes markup, it works."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from polyqwen.app.report import report, write_after_training
from polyqwen.app.train import train
from polyqwen.report.page.charts import Charts, decimated
from polyqwen.report.page.render import _templates, inert, render_page
from polyqwen.runs.history import Series
from polyqwen.runs.run_folder import RunFolder
from tests.conftest import ROOT, Configure
from tools.chromium import Chromium, find_chromium

SHORT = (
    "~callbacks.progress",
    "trainer.enable_model_summary=false",
    "+trainer.enable_progress_bar=false",
    "callbacks.step_log.every=1",
    "callbacks.throughput.every=1",
    "callbacks.gradient_conflicts.every=1",
    "weighting.eval_steps=1",
    "callbacks.weight_updater.every=1",
    "weighting.min_samples=1",
    "curriculum.total_steps=6",
    "curriculum.switch_step=2",
    "validate_every=3",
)
EVIL = '</script><script>window.broken=1</script><img src=x onerror="window.broken=1">'
NAME = "<img src=x onerror=window.broken=1>"  # of a series; a slash would make it a part of one
ATTRIBUTE = '" onmouseover="window.broken=1" x="'
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium")


class Reader(HTMLParser):
    """What a browser would see: texts, elements, addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._silent = 0
        self.feed(page)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        self._silent += name in ("script", "style")

    def handle_endtag(self, name: str) -> None:
        self._silent -= name in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one run of this file goes."""
    return tmp_path_factory.mktemp("report") / "run"


@pytest.fixture
def run(configure: Configure, kept: Path) -> Path:
    """A finished two-phase run of the tiny model, as `train.py` leaves it."""
    if not kept.exists():
        train(configure(*SHORT, f"run_dir={kept}"))
    return kept


@pytest.fixture
def evil(run: Path, tmp_path: Path) -> Path:
    """The same run with markup in every text that comes from outside."""
    folder = tmp_path / "evil"
    shutil.copytree(run, folder)
    config = (folder / "config.yaml").read_text().replace("metadata: {}", "metadata: {note: NOTE}")
    (folder / "config.yaml").write_text(config.replace("NOTE", json.dumps(EVIL + ATTRIBUTE)))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([f"+metadata.note={EVIL}"]))
    galleries = json.loads((folder / "report" / "galleries.json").read_text())
    for kinds in galleries.values():
        for row in kinds["hardest"]:
            row |= {"query": EVIL, "answer": ATTRIBUTE, "note": EVIL, "picture": "http://x/a.png"}
            row["results"][0] |= {"text": EVIL, "picture": f"data:image/jpeg;base64,{ATTRIBUTE}"}
    (folder / "report" / "galleries.json").write_text(json.dumps(galleries))
    updates = folder / "report" / "weight_updates.jsonl"
    lines = [json.loads(line) | {"reason": EVIL} for line in updates.read_text().splitlines()]
    updates.write_text("\n".join(map(json.dumps, lines)))
    metrics = (folder / "csv" / "metrics.csv").read_text()
    metrics = metrics.replace("train/loss/ocr,", f"train/loss/{NAME},", 1)
    (folder / "csv" / "metrics.csv").write_text(metrics)
    (folder / "train.log").write_text(f"10:00:00 WARNING {EVIL}\n10:00:01 INFO fine\n")
    report(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_papers_gap_lies_beside_the_measured_one(run: Path) -> None:
    charts = re.search(r'id="charts">(.*?)</script>', page_of(run), re.S)
    assert charts is not None
    specs = [spec for spec in json.loads(charts[1]).values() if "gap (cosine)" in spec["title"]]
    specs += [s for s in json.loads(charts[1]).values() if "of training batches" in s["title"]]
    assert len(specs) == 2  # of validation rows, of training batches
    for spec in specs:
        lines = {line["name"]: line for line in spec["series"]}
        assert "text_pair" in lines
        low, high = lines["paper_5.1_low"], lines["paper_5.1_high"]
        assert low["colour"] == high["colour"] == "#9aa0a8"
        measured = [x for name, line in lines.items() if "paper" not in name for x in line["x"]]
        assert (low["x"][0], low["x"][-1]) == (min(measured), max(measured))
        assert low["y"][-1] == pytest.approx(0.01 + 0.06 * max(measured) / 120, rel=1e-3)
    assert "viPolyQwen paper (5.1)" in " ".join(Reader(page_of(run)).texts)


def test_the_page_holds_every_number_of_the_results(run: Path) -> None:
    seen = Reader(page_of(run)).texts
    results = json.loads((run / "results.json").read_text())
    numbers = [
        f"{value:.4f}"
        for of in ("trained", "untrained", "chance")
        for metrics in results[of].values()
        for value in metrics.values()
        if value == value
    ]
    assert len(numbers) > 100 and not [n for n in numbers if n not in seen]
    for view in results["trained"]:
        assert view in seen
    whole = " ".join(seen)
    for word in ("foundation", "balance", "weights", "Conflicts", "No step was skipped", "seed 0"):
        assert word in whole
    assert len(page_of(run)) < 3_000_000


def test_skipped_steps_and_dropped_micro_batches_are_told(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "bad")
    head, *rows = (folder / "csv" / "metrics.csv").read_text().splitlines()
    head += ",train/skipped_steps,train/dropped_micro_batches"
    step = head.split(",").index("step")
    blank = [""] * head.count(",")
    blank[step] = "4"
    rows = [f"{row},," for row in rows] + [",".join([*blank[:-1], "1", "3"])]
    (folder / "csv" / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    report(folder)
    whole = " ".join(Reader(page_of(folder)).texts)
    assert "Skipped steps, losses or gradients not finite: 1 (at steps 4)." in whole
    assert "Dropped micro-batches, losses not finite: 3 (at steps 4)." in whole


def test_weights_are_told_with_what_the_strategy_saw(run: Path) -> None:
    whole = " ".join(Reader(page_of(run)).texts)
    updates = RunFolder(run).updates
    assert [update.step for update in updates] == [1, 2, 3, 4, 5, 6]
    for update in updates:
        assert update.reason in whole
        for loss in update.mean_losses.values():
            assert f"{loss:.3f}" in whole
    assert any(update.new != update.old for update in updates)


def test_nothing_is_fetched(run: Path) -> None:
    page = page_of(run)
    assert "http:" not in page and "https:" not in page and "@import" not in page
    for name, attributes in Reader(page).elements:
        assert name not in ("link", "iframe", "object", "base")
        for key in ("src", "href"):
            address = attributes.get(key) or "#"
            assert address.startswith(("#", "data:image/jpeg;base64,")), (name, address)
    assert "default-src 'none'" in page


def test_no_text_becomes_markup(evil: Path) -> None:
    found = Reader(page_of(evil))
    names = [name for name, _ in found.elements]
    assert names.count("script") == 2 and "http:" not in str(found.elements)
    assert not [a for _, a in found.elements if any(key.startswith("on") for key in a)]
    assert " ".join(found.texts).count("window.broken=1") >= 20
    data = re.search(r'id="charts">(.*?)</script>', page_of(evil), re.S)
    assert data
    names = {line["name"] for chart in json.loads(data[1]).values() for line in chart["series"]}
    assert NAME in names


@needs_chromium
def test_markup_in_texts_does_not_run(evil: Path, browser: Chromium) -> None:
    browser.open(f"file://{evil}/report.html")
    assert browser.ask("window.broken") is None
    assert browser.problems == []
    assert browser.ask("document.querySelectorAll('figure svg').length") > 10


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_opens_without_complaint(run: Path, browser: Chromium, dark: bool) -> None:
    browser.open(f"file://{run}/report.html", dark=dark)
    asked = [a for a in browser.requests if not a.startswith("data:")]
    assert browser.problems == [] and asked == [f"file://{run}/report.html"]
    folded = "document.querySelectorAll('details:not([open]) figure[data-chart]').length"
    charts = "document.querySelectorAll('figure[data-chart]').length"
    drawn = "document.querySelectorAll('figure[data-chart] svg').length"
    assert browser.ask(drawn) == browser.ask(f"{charts} - {folded}") > 20
    browser.ask("document.querySelectorAll('details').forEach((d) => d.open = true)")
    browser.until(f"{drawn} === {charts}", 20)
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    assert browser.problems == []


@needs_chromium
def test_charts_and_tables_answer(run: Path, browser: Chromium) -> None:
    browser.open(f"file://{run}/report.html")
    hover = """(() => {
      const svg = document.querySelector("#losses svg"), box = svg.getBoundingClientRect();
      const at = {clientX: box.left + box.width / 2, clientY: box.top + 50, bubbles: true};
      svg.dispatchEvent(new PointerEvent("pointermove", at));
      const tip = svg.parentElement.querySelector(".tip");
      return tip.hidden ? "" : tip.textContent;
    })()"""
    assert re.match(r"step \d", browser.ask(hover)) and "text_pair" in browser.ask(hover)
    paths = "document.querySelectorAll('#losses figure:first-child path').length"
    before = browser.ask(paths)
    browser.ask("document.querySelector('#losses .legend button').click()")
    assert browser.ask(paths) < before
    shown = "[...document.querySelectorAll('#settings tr')].filter((r) => !r.hidden).length"
    everything = browser.ask(shown)
    browser.ask(
        "(() => { const f = document.querySelector('[data-filters]'); f.value = 'optimizer lr';"
        " f.dispatchEvent(new Event('input')); })()"
    )
    assert 0 < browser.ask(shown) < 10 < everything and browser.problems == []


@needs_chromium
def test_it_fits_a_telephone(run: Path, browser: Chromium) -> None:
    browser.open(f"file://{run}/report.html", width=400, height=800)
    assert browser.ask("document.documentElement.scrollWidth") <= 400
    assert (
        browser.ask("document.querySelector('#curriculum svg').getBoundingClientRect().right")
        <= 400
    )


def test_a_run_that_goes_on_has_a_page(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unfinished"
    shutil.copytree(run, folder)
    for name in ("results.json", "report.html", "report/galleries.json"):
        (folder / name).unlink()
    updates = folder / "report" / "weight_updates.jsonl"
    updates.write_text(updates.read_text() + '{"step": 7, "mean')
    report(folder)
    whole = " ".join(Reader(page_of(folder)).texts)
    assert "going on, or it was interrupted" in whole and "Losses" in whole
    assert "Failures" not in whole and len(RunFolder(folder).updates) == 6


def test_damaged_files_leave_their_part_out(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(run, folder)
    for name in ("results.json", "csv/metrics.csv", "report/galleries.json"):
        (folder / name).write_text("{[,")
    report(folder)
    assert (
        "Configuration" in page_of(folder) and "<svg" not in page_of(folder).partition("<script")[0]
    )
    (folder / "config.yaml").write_text("{[,")
    with pytest.raises(ValueError, match=r"config\.yaml is not the configuration of a run"):
        report(folder)
    with pytest.raises(ValueError, match="there is no folder"):
        report(tmp_path / "nowhere")


def test_a_page_that_cannot_be_written_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_after_training(tmp_path)  # no run
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert line.startswith("no report was written: ValueError: ") and "\n" not in line


def test_a_configuration_from_elsewhere_is_not_obeyed(run: Path, tmp_path: Path) -> None:
    folder, trace = tmp_path / "strange", tmp_path / "trace"
    shutil.copytree(run, folder)
    text = (folder / "config.yaml").read_text()
    made = text.replace("polyqwen.data.sampling.curriculum.two_phase", "pathlib.Path.touch")
    assert made != text
    (folder / "config.yaml").write_text(made)
    assert RunFolder(folder).curriculum is None and not trace.exists()


def test_a_sweep_has_a_page_with_links(run: Path, tmp_path: Path) -> None:
    for job, rate in enumerate(("0.0003", "0.001")):
        shutil.copytree(run, tmp_path / str(job))
        config = tmp_path / str(job) / "config.yaml"
        text = re.sub(r"head_lr: \S+", f"head_lr: {rate}", config.read_text())
        config.write_text(text)
    (tmp_path / "2").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "2")
    command = [sys.executable, "-m", "polyqwen", "report", str(tmp_path)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(tmp_path / "report.html")
    found = Reader(page_of(tmp_path))
    links = [a["href"] for n, a in found.elements if n == "a" and "report.html" in str(a["href"])]
    assert sorted(map(str, links)) == ["0/report.html", "1/report.html"]
    whole = " ".join(found.texts)
    for word in ("head_lr=0.0003", "head_lr=0.001", "interrupted or still running", "Leaderboard"):
        assert word in whole
    assert "http:" not in page_of(tmp_path)


@needs_chromium
def test_the_page_of_a_sweep_works(run: Path, tmp_path: Path, browser: Chromium) -> None:
    shutil.copytree(run, tmp_path / "0")
    report(tmp_path)
    browser.open(f"file://{tmp_path}/report.html", width=400)
    assert browser.problems == []
    assert browser.ask("document.documentElement.scrollWidth") <= 400
    browser.ask("document.querySelector('table.sortable th:nth-child(3)').click()")
    assert browser.ask("document.querySelectorAll('th[aria-sort]').length") == 1


def test_evaluate_adds_to_the_page(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evaluated"
    shutil.copytree(run, folder)
    gain: dict[str, Any] = {"metric": "mrr", "difference": 0.1234, "low": 0.05, "high": 0.2}
    (folder / "evaluation").mkdir()
    for split, expected in (("test", True), ("dev", False)):
        metrics = {"split": split, "advantage_over_untrained": {"ocr": gain}}
        (folder / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
        report(folder)
        assert ("+0.123" in page_of(folder)) is expected


def test_every_text_of_a_template_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """{% extends "base.html.j2" %}
    {% from "macros.html.j2" import picture, section, table with context %}
    {% block header %}<p class="{{ text }}">{{ text }}</p>{{ picture(text, text) }}{% endblock %}
    {% block main %}
    {% call(lines) section("A & B") %}{{ table([text], lines) }}{% endcall %}
    {% call(lines) section("Empty") %}{{ lines.nothing }}{% endcall %}
    {% endblock %}"""
    templates = _templates()
    monkeypatch.setattr(templates.loader, "get_source", _beside(templates.loader, source))
    sections = {"A & B": [["<td>"]], "Empty": None}
    page = render_page("test.html.j2", EVIL, sections, Charts({}), text=ATTRIBUTE + EVIL)
    found = Reader(page)
    names = [name for name, _ in found.elements]
    assert names.count("script") == 2 and "img" not in names
    assert not [a for _, a in found.elements if any(key.startswith("on") for key in a)]
    assert found.texts.count("<td>") == 1 and "a---b" in page and "Empty" not in page
    assert found.texts.count(ATTRIBUTE + EVIL) == 2 and EVIL in found.texts
    with pytest.raises(UndefinedError, match="has no attribute 'wrong'"):
        templates.from_string("{{ run.wrong }}").render(run=Series([], []))


def _beside(loader: Any, source: str) -> Any:
    """A loader's function that knows one more template."""
    known = loader.get_source

    def get_source(environment: Any, name: str) -> Any:
        return (source, None, None) if name == "test.html.j2" else known(environment, name)

    return get_source


def test_chart_data_cannot_end_its_script() -> None:
    text = inert({"<": "</script>&\u2028"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"<": "</script>&\u2028"}


def test_long_series_are_thinned_to_logged_values() -> None:
    steps = list(range(0, 20_000, 10))
    series = Series(steps, [step / 3 for step in steps])
    x, y = decimated(series, 500)
    assert len(x) <= 501 and x[0] == 0 and x[-1] == steps[-1]
    assert all(value == pytest.approx(step / 3, rel=1e-4) for step, value in zip(x, y, strict=True))
    assert decimated(Series([1, 2], [float("nan"), 2.0])) == ([1, 2], [None, 2.0])
