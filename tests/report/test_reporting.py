"""Tables, curves, histograms and galleries from small synthetic results."""

import csv
import math
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from polyqwen.report import text_layout as text
from polyqwen.report.curves import plot_curves
from polyqwen.report.figure_style import OTHER_COLOURS, TASK_COLOURS, reduce_colours, task_colours
from polyqwen.report.gallery import GalleryRow, Result, gallery_markdown, has_pictures
from polyqwen.report.gallery_image import gallery_image, plot_gallery
from polyqwen.report.results_table import results_markdown, results_table, table_rows
from polyqwen.report.similarity_histogram import plot_similarity_histogram
from polyqwen.report.text_layout import drawable, wrap_text
from polyqwen.runs.history import by_metric, by_task, read_history, smooth

RESULTS = {
    "text_pair": {"pool": 1234.0, "recall@1": 0.5, "mrr": 0.6, "spearman": 0.71, "gap": 0.2},
    "ocr": {"pool": 56.0, "recall@1": 0.25, "mrr": 0.3, "gap": math.nan},
}
BASELINE = {"text_pair": {"recall@1": 0.1, "mrr": 0.7}, "ocr": {"recall@1": 0.05}}
CHANCE = {"text_pair": {"recall@1": 0.001}, "ocr": {"recall@1": 0.018}}


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def assert_picture(path: Path, min_width: int = 500) -> None:
    with Image.open(path) as image:
        assert image.width >= min_width and image.height >= 200
        colours = image.convert("RGB").resize((200, 200)).getcolors(40_000)
    assert len(colours) > 10  # something was drawn


def test_table_rows() -> None:
    rows = table_rows(RESULTS, BASELINE, CHANCE)
    assert [(row.task, row.model) for row in rows[:4]] == [
        ("text_pair", "trained"),
        ("", "untrained"),
        ("", "chance"),
        ("ocr", "trained"),
    ]
    assert rows[0].pool == "1,234" and rows[1].pool == ""
    assert rows[0].cells == ("0.500", "–", "–", "0.600", "–", "0.710", "0.200")
    assert rows[0].better == (True, None, None, False, None, None, None)
    assert not any(rows[1].better)
    assert rows[3].cells[-2:] == ("–", "–")  # missing and NaN
    assert [row.model for row in table_rows(RESULTS)] == ["trained", "trained"]


def test_table_rejects_foreign_tasks() -> None:
    with pytest.raises(ValueError, match=r"chance has tasks \['vqa'\]"):
        table_rows(RESULTS, chance={"vqa": {}})


def test_printed_table_fits_the_terminal() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(results_table(RESULTS, BASELINE, CHANCE, title="Validation"))
    console.file.close()
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    line = next(line for line in lines if "text_pair" in line)
    assert line.split() == [
        "text_pair",
        "trained",
        "1,234",
        "0.500",
        "–",
        "–",
        "0.600",
        "–",
        "0.710",
        "0.200",
    ]
    assert sum("untrained" in line for line in lines) == 2
    assert results_table(RESULTS).row_count == 2


def test_markdown_table() -> None:
    lines = results_markdown(RESULTS, BASELINE, CHANCE).splitlines()
    assert lines[0].startswith("| Task | Model | Pool | R@1 |")
    assert len({line.count("|") for line in lines}) == 1
    assert "| text_pair | trained | 1,234 | **0.500** | – | – | 0.600 |" in lines[2]
    assert len(lines) == 2 + 6
    assert results_markdown({"a|b": {}}).splitlines()[2].startswith(r"| a\|b |")


def write_history(path: Path, steps: int = 60) -> Path:
    """Sparse rows, as CSVLogger writes them: training, weights and validation on separate lines."""
    rows: list[dict[str, float | str]] = []
    for step in range(steps):
        rows.append({"step": step, "epoch": 0, "train/loss/ocr": 3 - step / 50})
        rows.append({"step": step, "train/loss/text_pair_step": math.exp(-step / 20)})
        rows.append({"step": step, "train/loss/ocr/infonce": 9.0, "schedule/temperature": 0.07})
        rows.append({"step": step, "schedule/lr": 1e-6 * step})
        if step % 20 == 0:
            rows.append({"step": step, "weight/ocr": 1.0, "weight/text_pair": 0.5})
            rows.append({"step": step, "val/ocr/mrr": 0.1 + step / 100, "val/ocr/pool": 40})
            rows.append({"step": step, "val/text_pair/gap": math.nan, "space/ocr/alignment": 0.4})
    rows.append({"step": steps - 1, "epoch": 0, "train/loss/text_pair_epoch": 5.0})
    keys = sorted({key for row in rows for key in row})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_history(tmp_path: Path) -> None:
    history = read_history(write_history(tmp_path / "metrics.csv"))
    losses = by_task(history, "train/loss")
    assert set(losses) == {"ocr", "text_pair"}  # no components, no second name for a loss
    assert losses["ocr"].steps == list(range(60))
    assert losses["text_pair"].values[0] == 1
    assert by_task(history, "weight")["ocr"].steps == [0, 20, 40]
    metrics = by_metric(history, "val")
    assert metrics["mrr"]["ocr"].values == pytest.approx([0.1, 0.3, 0.5])
    assert all(map(math.isnan, metrics["gap"]["text_pair"].values))


def test_history_without_steps(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column 'step'"):
        read_history(tmp_path / "other.csv")


def test_smooth() -> None:
    assert smooth([2.0] * 5, span=3) == pytest.approx([2.0] * 5)
    assert smooth([0.0, 1.0], span=3) == pytest.approx([0, 1 / 1.5])
    assert smooth([math.nan, 1.0, math.nan], span=3)[1:] == [1.0, 1.0]


@pytest.mark.parametrize("phase_switch", [None, 30])
def test_curves(tmp_path: Path, phase_switch: int | None) -> None:
    out = tmp_path / "figures"
    written = plot_curves(write_history(tmp_path / "metrics.csv"), out, phase_switch)
    names = ["losses", "weights", "schedules", "validation", "space"]
    assert [path.name for path in written] == [f"{name}.png" for name in names]
    for path in written:
        assert_picture(path)


def test_curves_leave_out_what_was_not_logged(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,weight/ocr\n0,1.0\n1,0.9\n")
    written = plot_curves(tmp_path / "metrics.csv", tmp_path)
    assert [path.name for path in written] == ["weights.png"]


def test_task_colours_are_fixed_and_distinct() -> None:
    assert task_colours(["ocr"])["ocr"] == TASK_COLOURS["ocr"]
    others = [f"task_{i}" for i in range(len(OTHER_COLOURS))]
    colours = task_colours([*others, *TASK_COLOURS])
    assert len(set(colours.values())) == len(colours)
    assert colours == task_colours(reversed([*others, *TASK_COLOURS]))
    assert len(task_colours([*others, "one_too_many"])) == len(others) + 1


def test_histogram(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    matching, other = generator.normal(0.5, 0.1, 200), generator.normal(0, 0.1, 2000)
    assert_picture(plot_similarity_histogram(matching, other, "ocr, $5 each", tmp_path / "a.png"))
    same = plot_similarity_histogram(np.ones(9), np.ones(99), "collapsed", tmp_path / "b.png")
    assert_picture(same)
    with pytest.raises(ValueError, match="no finite non-matching"):
        plot_similarity_histogram(matching, [math.nan], "empty", tmp_path / "c.png")


def test_a_palette_keeps_thin_lines_apart(tmp_path: Path) -> None:
    colours = [(0, 114, 178), (0, 158, 115), (213, 94, 0), (230, 159, 0), (204, 121, 167)]
    shades = np.tile(np.linspace(90, 255, 600).astype(np.uint8)[:, None], (1, 600))
    picture = np.repeat(shades[:, :, None], 3, axis=2)
    for i, colour in enumerate(colours):
        picture[:, 100 * (i + 1)] = colour
    Image.fromarray(picture).save(tmp_path / "few.png")
    reduce_colours(tmp_path / "few.png", 64)
    with Image.open(tmp_path / "few.png") as image:
        assert image.mode == "P" and len(image.getcolors() or []) <= 64
        found = np.asarray(image.convert("RGB")).astype(int)
    for i, colour in enumerate(colours):
        assert np.abs(found[:, 100 * (i + 1)] - colour).max() <= 8, colour
    assert np.abs(found - picture).mean() < 4


def test_wrap_text() -> None:
    assert wrap_text("one two three four", width=9) == "one two\nthree\nfour"
    assert wrap_text("one two three four", width=9, max_lines=2) == "one two\nthree…"
    assert wrap_text("", width=9) == ""
    assert wrap_text("abcdefghij", width=4) == "abcd\nefgh\nij"
    assert wrap_text("中文发票总额", width=4) == "中文\n发票\n总额"  # two columns each
    with pytest.raises(ValueError, match="width=3"):
        wrap_text("text", width=3)


@pytest.mark.parametrize(
    "sample", ["word " * 50, "x" * 90, "中文" * 40, "đường phố Thuỵ Khuê " * 9]
)
def test_wrapped_lines_fit(sample: str) -> None:
    lines = wrap_text(sample, width=15, max_lines=3).split("\n")
    assert len(lines) == 3 and lines[-1].endswith("…")
    assert all(cell_len(line) <= 15 for line in lines)


def test_drawable(monkeypatch: pytest.MonkeyPatch) -> None:
    vietnamese = "Đường phố Thuỵ Khuê, 1.250.000 ₫"
    assert drawable(vietnamese) == vietnamese
    assert drawable(unicodedata.normalize("NFD", vietnamese)) == vietnamese
    assert drawable("a\n\tb\u200b c") == "a b c"
    monkeypatch.setattr(text, "_known_characters", lambda: frozenset(map(ord, "ab ")))
    assert drawable("a中b") == "a U+4E2D b"


def gallery_rows() -> list[GalleryRow]:
    picture = Image.new("RGB", (120, 80), "navy")
    found = [Result("Hoá đơn tiền điện " * 9, picture, 0.81, True), ("$x$", None, 0.2, False)]
    return [
        GalleryRow(query_text="Đây là gì?", query_image=picture, answer_text="x", results=found),
        GalleryRow(query_text="中文发票", query_image=None, answer_text="", results=found[1:]),
        GalleryRow(query_text="none found 😀", query_image=None, answer_text="-", results=[]),
    ]


def test_gallery(tmp_path: Path) -> None:
    rows = gallery_rows()
    assert_picture(plot_gallery(rows, tmp_path / "new" / "gallery.png", title="Examples"))
    assert_picture(plot_gallery(rows[2:], tmp_path / "one.png"), min_width=300)
    with pytest.raises(ValueError, match="at least one query"):
        plot_gallery([], tmp_path / "none.png")


def test_gallery_draws_at_most_five_results() -> None:
    row = gallery_rows()[1]
    results = [Result(f"result {i}", None, 0.5, False) for i in range(9)]
    all_nine, five, four = (
        np.asarray(gallery_image([{**row, "results": results[:count]}])) for count in (9, 5, 4)
    )
    assert np.array_equal(all_nine, five) and not np.array_equal(five, four)


def test_gallery_bands_hold_pictures_texts_and_frames() -> None:
    rows = gallery_rows()
    green, red = ((0x1B, 0x7F, 0x3B), (0xC0, 0x39, 0x2B))
    array = np.asarray(gallery_image(rows, "Results with pictures", width=600))
    navy = (array == np.array([0, 0, 128], np.uint8)).all(axis=2)
    assert navy[:, :180].any() and navy[:, 200:].any()  # of the query, and of its first result
    above = (array == np.array(green, np.uint8)).all(axis=2)
    assert above[:, 200:].sum(axis=1).max() > 50  # its frame
    rows[0] |= {"answer_note": "rank 57 of 262", "results": rows[0]["results"][1:]}
    assert has_pictures(rows) and not has_pictures(rows[1:])
    array = np.asarray(gallery_image(rows, "Examples", width=600))
    assert array.shape[1:] == (600, 3) and array.dtype == np.uint8
    assert (array == np.array(red, np.uint8)).all(axis=2).any()
    band = array.shape[0] // 3
    navy = (array == np.array([0, 0, 128], np.uint8)).all(axis=2)
    assert navy[:band].mean() > 0.1 and not navy[band + 40 :].any()  # one query has a picture
    assert array[-band:].std() > 5  # the last one has text
    with pytest.raises(ValueError, match="at least one query"):
        gallery_image([], "none")


def test_gallery_as_text_lets_no_text_break_the_table() -> None:
    row = GalleryRow(
        query_text="a | b\n*c* <b>",
        query_image=None,
        answer_text="`x`",
        answer_note="rank 2 of 9",
        results=[Result("[l](u)", None, 0.5, False), Result("x_y", None, 0.25, True)],
    )
    lines = gallery_markdown([row, {**row, "results": []}]).splitlines()
    assert lines[0] == "| query | right document | 1 | 2 |" and len(lines) == 4
    assert {line.count("|") for line in lines} == {5}
    assert lines[2].startswith("| a &#124; b &#42;c&#42; &lt;b&gt; | &#96;x&#96; (rank 2 of 9) |")
    assert "✗ **0.500** &#91;l&#93;(u) | ✓ **0.250** x&#95;y |" in lines[2]
