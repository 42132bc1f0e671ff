"""Leaderboards from runs' own files: grouping, statistics, what is written, what is refused."""

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from polyqwen.app.commands.compare import compare
from polyqwen.report.comparison.board import build_board
from polyqwen.report.comparison.claims import put_to_the_test, read_claim
from polyqwen.runs.run_folder import RunFolder
from tests.conftest import ROOT

TASKS = ("text_pair", "ocr")


def write_run(
    folder: Path,
    seed: int,
    text: float,
    ocr: float,
    overrides: Mapping[str, Any] | None = None,
    step: float | None = 0.1,
    tasks: tuple[str, ...] = TASKS,
) -> Path:
    """A finished run's files, with the numbers that a test needs."""
    folder.mkdir(parents=True)
    overrides = dict(overrides or {})
    settings: dict[str, Any] = {"seed": seed, "run_dir": str(folder), "data": {"seed": seed}}
    settings |= {"optimizer": {"head_lr": overrides.get("optimizer.head_lr", 0.1)}}
    settings |= {"weighting": {"name": overrides.get("weighting", "stw")}}
    settings |= {"callbacks": {"last": {"dirpath": f"{folder}/checkpoints"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / ".hydra").mkdir()
    given = [f"{key}={value}" for key, value in overrides.items()]
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*given, f"seed={seed}"]))
    own = {"text_pair": {"spearman": text, "recall@1": 0.9}, "ocr": {"recall@1": ocr, "pool": 32}}
    results: dict[str, Any] = {
        "trained": {task: own.get(task, {"recall@1": ocr}) for task in tasks}
        | {"ocr/shuffled_pictures": {"recall@1": 0.01}},
        "untrained": {"text_pair": {"spearman": 0.02}, "ocr": {"recall@1": 0.04}},
        "chance": {"text_pair": {"recall@1": 0.5}, "ocr": {"recall@1": 0.01}},
    }
    if step is not None:  # runs of old have neither
        results["timing"] = {"fit_seconds": 60.0, "steps": 600, "seconds_per_step": step}
        results["forgetting"] = {"task": "text_pair", "at_switch": 0.5, "end": 0.5 + ocr}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "csv").mkdir()
    rows = "step,weight/text_pair,weight/ocr\n10,1.0,1.0\n20,0.5,1.5\n"
    (folder / "csv" / "metrics.csv").write_text(rows)
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two strategies and three seeds, and a run that was interrupted."""
    static = [(0.60, 0.20), (0.64, 0.22), (0.62, 0.30)]
    stw = [(0.66, 0.24), (0.68, 0.28), (0.67, 0.32)]
    for seed, (text, ocr) in enumerate(static):
        folder = tmp_path / "sweep" / str(seed)
        write_run(folder, seed, text, ocr, {"weighting": "static"}, step=0.1)
    for seed, (text, ocr) in enumerate(stw):
        folder = tmp_path / "sweep" / str(10 + seed)
        write_run(folder, seed, text, ocr, {"weighting": "stw"}, step=0.15)
    torn = tmp_path / "sweep" / "20"
    write_run(torn, 3, 0.0, 0.0)
    (torn / "results.json").unlink()
    return tmp_path / "sweep"


def test_runs_of_a_sweep_form_variants_by_what_differs(sweep: Path) -> None:
    board = compare([sweep], "weighting=static")
    assert [row.name for row in board.rows] == ["weighting=stw", "weighting=static"]
    assert {row.seeds for row in board.rows} == {(0, 1, 2)} and board.tasks == list(TASKS)
    best = board.rows[0]
    ours, theirs = [0.45, 0.48, 0.495], [0.40, 0.43, 0.46]
    low, high = stats.t.interval(0.95, 2, loc=0.475, scale=stats.sem(ours))
    assert best.score.mean == pytest.approx(0.475)
    assert (best.score.low, best.score.high) == pytest.approx((low, high))
    # one other variant, so Holm changes nothing for the score; for two tasks it doubles the smaller
    assert best.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    text = stats.ttest_rel([0.66, 0.68, 0.67], [0.60, 0.64, 0.62]).pvalue
    ocr = stats.ttest_rel([0.24, 0.28, 0.32], [0.20, 0.22, 0.30]).pvalue
    assert text < ocr
    assert best.task_p == pytest.approx({"text_pair": 2 * text, "ocr": max(2 * text, ocr)})
    gains = {"text_pair": 100 * 0.05 / 0.62, "ocr": 100 * 0.04 / 0.24}
    assert best.gains == pytest.approx(gains)
    assert best.gain == pytest.approx(sum(gains.values()) / 2)
    assert best.cost == pytest.approx(1.5) and board.rows[1].cost == 1.0
    assert board.untrained.score.mean == pytest.approx(0.03)
    assert board.chance.score.mean == pytest.approx(0.005)  # a random order's Spearman is 0


def test_files_say_the_same(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare([sweep], "weighting=static")
    out = sweep / "leaderboard"
    assert {p.name for p in out.iterdir()} == {
        *("leaderboard.html", "leaderboard.md", "leaderboard.csv", "runs.csv", "axes.csv"),
        *("bars.png", "trade_off.png", "weights.png"),
    }
    with (out / "leaderboard.csv").open() as file:
        lines = {line["variant"]: line for line in csv.DictReader(file)}
    assert float(lines["weighting=stw"]["score_mean"]) == pytest.approx(0.475)
    assert float(lines["weighting=stw"]["cost"]) == pytest.approx(1.5)
    with (out / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    markdown = (out / "leaderboard.md").read_text()
    assert "| weighting=stw | 3 | 0.475 ± 0.057 | +0.045 ± " in markdown
    assert "20 does not count: no results.json" in markdown
    printed = capsys.readouterr().out
    assert "0.475 ± 0.057" in printed and "20 does not count" in printed
    for picture in out.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


class Page(HTMLParser):
    """What a page loads, and its tables' cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.keys: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.loaded += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href", "srcset")]
        self.keys += [str(named["data-key"])] if "data-key" in named else []
        if tag not in ("meta", "path", "use", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_needs_nothing_else(sweep: Path) -> None:
    compare([sweep], "weighting=static")
    text = (sweep / "leaderboard" / "leaderboard.html").read_text()
    assert not re.search(r"https?:|//\w+\.\w+|@import|url\((?!#)", text)
    page = Page(text)
    assert page.loaded and all(target.startswith("#") for target in page.loaded)
    assert not page.open  # every element is closed
    assert text.count("data-chart=") == 5 and "addEventListener" in text
    assert len(page.keys) == 2 * len(re.findall(r"<th[ >]", text.partition("</thead>")[0]))
    assert "0.475" in page.keys or any(k.startswith("0.47") for k in page.keys)


def test_the_page_tells_what_the_other_files_do(sweep: Path) -> None:
    compare([sweep], "weighting=static")
    text = (sweep / "leaderboard" / "leaderboard.html").read_text()
    _, _, board = text.partition('<table class="sortable">')
    board, foot = board.split("</table>")[0].split("<tfoot>")
    best = re.findall(r"<b>([^<]+)</b>", board)
    assert best == ["0.475", "+12.4", "0.670", "0.280"]  # score, Δ %, and each task
    assert board.count('class="chosen"') == 1 and 'title="weighting=stw"' in board
    assert "<small>± 0.057</small>" in board
    trends = re.findall(r'class="number (good|bad)"', board)
    assert trends == ["good"] * 4  # the score, its difference and p, and the text pairs
    assert re.findall(r"\((\w+)\)", foot) == ["untrained", "chance"] and "0.030" in foot
    for heading in ("Trade-offs", "Weights", "Runs", "Variants", "How to read this"):
        assert f"<h2>{heading}</h2>" in text
    assert "<code>weighting=stw</code>" in text and "interrupted or still running" in text


def test_a_name_cannot_break_the_page(tmp_path: Path) -> None:
    for value in ("<script>alert(1)</script>", "a|b"):
        name = str(abs(hash(value)))
        write_run(tmp_path / "runs" / name, 0, 0.5, 0.5, {"weighting": value})
    compare([tmp_path / "runs"])
    page = (tmp_path / "runs" / "leaderboard" / "leaderboard.html").read_text()
    assert page.count("<script>") == 1 and "&lt;script&gt;" in page
    assert r"a\|b" in (tmp_path / "runs" / "leaderboard" / "leaderboard.md").read_text()


def test_runs_of_old_and_single_seeds_are_read(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", 0, 0.5, 0.25, {"optimizer.head_lr": 0.1}, step=None)
    b = write_run(tmp_path / "b", 0, 0.6, 0.25, {"optimizer.head_lr": 0.2}, step=None)
    board = compare([a, b], out=tmp_path / "out")
    first, second = board.rows
    assert (first.name, second.name) == ("head_lr=0.2", "head_lr=0.1")
    assert board.baseline == "head_lr=0.1"
    assert math.isnan(first.score.low) and math.isnan(first.p) and math.isnan(first.cost)
    assert first.difference.mean == pytest.approx(0.05)
    assert "nan" not in (tmp_path / "out" / "leaderboard.md").read_text().lower()


def test_without_overrides_settings_name_the_variants(tmp_path: Path) -> None:
    for i, rate in enumerate((0.1, 0.2)):
        folder = write_run(tmp_path / str(i), 0, 0.5, 0.5, {"optimizer.head_lr": rate})
        (folder / ".hydra" / "overrides.yaml").unlink()
    board = compare([tmp_path])
    assert {row.name for row in board.rows} == {"head_lr=0.1", "head_lr=0.2"}


def test_the_last_of_two_equal_runs_counts(tmp_path: Path, capsys: Any) -> None:
    old = write_run(tmp_path / "a", 0, 0.5, 0.5)
    write_run(tmp_path / "b", 0, 0.7, 0.5)
    import os

    os.utime(old / "results.json", (1, 1))
    board = compare([tmp_path])
    assert [row.seeds for row in board.rows] == [(0,)]
    assert board.rows[0].score.mean == pytest.approx(0.6)
    assert "with this seed is also in" in capsys.readouterr().out


def test_tasks_that_not_all_runs_have_are_left_out(tmp_path: Path, capsys: Any) -> None:
    write_run(tmp_path / "a", 0, 0.5, 0.25, {"weighting": "a"})
    write_run(tmp_path / "b", 0, 0.5, 0.75, {"weighting": "b"}, tasks=("ocr", "vqa"))
    board = compare([tmp_path])
    assert board.tasks == ["ocr"] and [row.score.mean for row in board.rows] == [0.75, 0.25]
    assert "left out of everything" in capsys.readouterr().out


def test_labels_count_by_macro_f1_and_texts_without_not_at_all(tmp_path: Path) -> None:
    for name, f1 in (("a", 0.5), ("b", 0.75)):
        folder = write_run(tmp_path / name, 0, 0.25, 0.0, {"weighting": name})
        results = json.loads((folder / "results.json").read_text())
        labelled = {"loss": 2.0, "accuracy": 0.9, "macro_f1": f1}
        results["trained"] = {
            "text_pair": {"spearman": 0.25},
            "intent": labelled,
            "text_unlabelled": {"rows": 64, "uniformity": -1.0},
        }
        results["chance"] = {"text_pair": {}, "intent": {"macro_f1": 0.1}}
        (folder / "results.json").write_text(json.dumps(results))
    board = compare([tmp_path])
    assert board.metrics == {"text_pair": "spearman", "intent": "macro_f1"}
    assert [row.score.mean for row in board.rows] == [0.5, 0.375]
    assert board.chance.score.mean == pytest.approx(0.05)
    written = (tmp_path / "leaderboard" / "leaderboard.md").read_text()
    assert "intent F1" in written and "text_unlabelled" not in written
    with (tmp_path / "leaderboard" / "runs.csv").open() as file:
        assert [line["intent"] for line in csv.DictReader(file)] == ["0.5", "0.75"]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "polyqwen", "compare", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_mistakes_are_one_line(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "other" / "a", 0, 0.5, 0.5, {"weighting": "x"}, tasks=("vqa",))
    write_run(tmp_path / "other" / "b", 0, 0.5, 0.5, {"weighting": "y"})
    cases: list[tuple[list[object], str]] = [
        ([tmp_path / "nowhere"], "there is no folder"),
        ([tmp_path / "empty"], "has no runs"),
        ([sweep / "20"], "none of 1 runs is finished"),
        ([sweep, "--baseline", "weighting=statc"], "baseline 'weighting=statc' has no finished"),
        ([tmp_path / "other"], "no task in common"),
    ]
    for arguments, message in cases:
        ended = command(*arguments)
        assert ended.returncode == 1 and ended.stdout == ""
        assert ended.stderr.startswith("error: ") and message in ended.stderr
        assert ended.stderr.count("\n") == 1
    fine = command(sweep, "--to", tmp_path / "here")
    assert fine.returncode == 0 and (tmp_path / "here" / "leaderboard.html").is_file()


def record(seed: int, text: float, ocr: float, wrong: float = 0.0) -> RunFolder:
    """A run without files."""
    trained = {
        "text_pair": {"spearman": text},
        "ocr": {"recall@1": ocr, "mrr": 2 * ocr},
        "text_pair/wrong_prefix": {"spearman": wrong},
        "ocr/wrong_prefix": {"recall@1": wrong},
    }
    forgetting = {"at_switch": 0.5, "end": text}
    run = RunFolder(Path(f"r{seed}"), seed=seed)
    run.results = {"trained": trained, "forgetting": forgetting}
    return run


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("score", 0.5),
        ("score@wrong_prefix", 0.1),
        ("text_pair", 0.6),
        ("ocr/mrr", 0.8),
        ("ocr@wrong_prefix", 0.1),
        ("retention", 0.1),
        ("score@grey_pictures", math.nan),
        ("vqa", math.nan),
        ("ocr/nope", math.nan),
    ],
)
def test_values_by_name(metric: str, value: float) -> None:
    found = record(0, 0.6, 0.4, 0.1).value_of(metric, list(TASKS))
    assert found == pytest.approx(value, nan_ok=True)


def test_claims_are_put_to_the_test() -> None:
    noise = (0.0, 0.01, 0.02, 0.03)
    variants = {
        "with": [record(s, 0.6 + n, 0.4, 0.3 + n / 2) for s, n in enumerate(noise)],
        "without": [record(s, 0.4 + n * 1.1, 0.4) for s, n in enumerate(noise)],
        "once": [record(0, 0.1, 0.1)],
    }
    claims = {
        "better": {"text": "t", "with": "with", "without": "without"},
        "worse": {"text": "t", "with": "without", "without": "with", "metric": "text_pair"},
        "same": {"text": "t", "with": "with", "without": "without", "metric": "ocr"},
        "kept": {"text": "t", "with": "with", "metric": "retention"},
        "prefix": {
            "text": "t",
            "with": "with",
            "without": "with",
            "metric_without": "score@wrong_prefix",
        },
        "one": {"text": "t", "with": "with", "without": "once"},
        "missing": {"text": "t", "with": "with", "without": "nowhere"},
    }
    read = {name: read_claim(name, fields) for name, fields in claims.items()}
    found = {t.name: t for t in put_to_the_test(read, variants, list(TASKS))}
    assert {name: tested.verdict for name, tested in found.items()} == {
        "better": "holds",
        "worse": "contradicted",
        "same": "no difference",
        "kept": "holds",
        "prefix": "holds",
        "one": "for, one seed",
        "missing": "not measured",
    }
    plain = stats.ttest_1samp([0.1 + n for n in noise], 0.0).pvalue
    assert found["kept"].p == pytest.approx(2 * plain)  # the largest but one of five tests
    with pytest.raises(ValueError, match="unknown keys"):
        read_claim("x", {"text": "t", "with": "a", "against": "b"})


def test_differences_take_shared_seeds_only() -> None:
    variants = {
        "base": [record(s, 0.5, 0.5) for s in (0, 1)],
        "more": [record(s, 0.6, 0.5 + s / 100) for s in (1, 2, 3)],
    }
    row = next(r for r in build_board(variants, "base").rows if r.name == "more")
    assert row.difference.n == 1 and row.difference.mean == pytest.approx(0.055)
    assert math.isnan(row.p) and len(row.seeds) == 3
