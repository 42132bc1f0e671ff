"""Draws the pictures of docs/concepts.md: python -m tools.draw_concepts.

Curves are computed by the code that training uses, at the paper's values.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from polyqwen.data.sampling.curriculum import two_phase
from polyqwen.report.figure_style import FAINT, INK, MUTED, figure_style, task_colours
from polyqwen.training import schedules

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SHARES = {"text_pair": 3.5, "ocr": 1.5, "vqa_single": 1.5, "vqa_multi": 1.0}
SWITCH, RUN, TOTAL, BOOST = 2000, 15625, 6000, 500  # of the run the first TOTAL steps
KEPT, AGAIN = "#0072B2", "#E69F00"


def data_flow(figure: Figure) -> None:
    """From files to the gradient, one box a stage."""
    axes = _empty(figure, 12.6, 5.0)
    stages = [
        ("files", "rows of any columns,\npictures", "data/readers"),
        ("tables", "tokenised once,\nmapped into memory", "data/prepare"),
        ("step sampler", "which rows of which task:\na function of seed and step", "data/sampler"),
        ("collator", "prefixes, pictures,\nchunks of like length", "data/collator"),
    ]
    for i, stage in enumerate(stages):
        _box(axes, 0.2 + 3.1 * i, 3.7, stage)
        if i:
            _arrow(axes, (3.1 * i - 0.2, 4.3), (3.1 * i + 0.2, 4.3))
    stages = [
        ("update", "clip, AdamW:\none step of Lightning", "module.py"),
        ("total", "Σ λ_t · boost_t · L_t", "weighting/"),
        ("losses", "one per task, in-batch\nnegatives of that task only", "losses/"),
        ("model", "encoder → pooling →\nprojection → unit norm", "models/"),
    ]
    for i, stage in enumerate(stages):
        _box(axes, 0.2 + 3.1 * i, 1.5, stage)
        if i:
            _arrow(axes, (3.1 * i + 0.2, 2.1), (3.1 * i - 0.2, 2.1))
    _arrow(axes, (10.85, 3.7), (10.85, 2.72))
    note = "each content is embedded once a step; the vision tower sees each picture once"
    axes.text(10.65, 3.2, note, ha="right", va="center", fontsize=8.5, color=MUTED)
    axes.annotate(
        "",
        (4.65, 1.48),
        (7.75, 1.48),
        arrowprops={"arrowstyle": "->", "color": KEPT, "connectionstyle": "arc3,rad=-0.35"},
    )
    note = "mean losses, gradients at the shared head, trusted rows: statistics for the next λ"
    axes.text(6.2, 0.45, note, ha="center", va="center", fontsize=8.5, color=KEPT)


def curriculum(figure: Figure) -> None:
    """Shares, schedules and factors over the steps of the paper's recipe."""
    steps = list(range(0, TOTAL, 20))
    plan = two_phase(
        SHARES,
        switch_step=SWITCH,
        total_steps=RUN,
        foundation=["text_pair"],
        shares_over="run",
    )
    shares = plan.share_table(0, TOTAL)[::20]  # (S, T)
    figure.set_size_inches(10, 5.6)
    top, left, right, last = figure.subplots(2, 2).flatten()
    colours = task_colours(SHARES)
    top.stackplot(steps, shares.T, labels=list(SHARES), colors=[colours[t] for t in SHARES])
    top.set_title("rows of a step, by task")
    top.legend(loc="lower left", frameon=True)
    boost = [schedules.decay_from_switch(s, SWITCH, 2.0, BOOST) for s in steps]
    beta = [1.05 if s < SWITCH else 0.95 for s in steps]
    left.plot(steps, boost, color=colours["text_pair"], label="boost of text_pair")
    left.plot(steps, beta, color=INK, label="β of strategic task weighting")
    left.set_title("factors on losses")
    left.legend()
    for name, start, end, colour in (
        ("score weight", 0.5, 3.0, KEPT),
        ("rank weight", 0.1, 1.0, AGAIN),
        ("temperature × 10", 1.0, 0.7, MUTED),
    ):
        ramp = [schedules.linear(s, start, end, SWITCH) for s in steps]
        right.plot(steps, ramp, color=colour, label=name)
    right.set_title("warm-ups")
    right.legend()
    last.plot(steps, [schedules.cosine(s, 50.0, 5.0, SWITCH) for s in steps], color=INK)
    last.set_title("largest gradient norm")
    for axes in (top, left, right, last):
        axes.axvline(SWITCH, color=MUTED, linestyle=":")
        axes.set_xlabel("optimizer step")


def large_batch(figure: Figure) -> None:
    """What the modes keep of a step and what they compute again."""
    axes = _empty(figure, 9.6, 4.6)
    modes = {
        "off": ("everything", [True, True, True], 3),
        "checkpoint": ("what goes into each layer", [True, False, True], 4),
        "cached": ("one vector a content", [False, False, True], 4),
    }
    parts = ["inputs of layers", "inside layers", "pooled features"]
    for column, part in enumerate(parts):
        axes.text(3.55 + 1.75 * column, 4.25, part, ha="center", color=MUTED)
    axes.text(8.8, 4.25, "passes", ha="center", color=MUTED)
    for row, (name, (text, kept, passes)) in enumerate(modes.items()):
        y = 3.1 - 1.2 * row
        axes.text(0.1, y + 0.42, name, fontsize=11, fontweight="bold", color=INK)
        axes.text(0.1, y + 0.08, text, fontsize=8.5, color=MUTED)
        for column, is_kept in enumerate(kept):
            colour = KEPT if is_kept else "white"
            edge = KEPT if is_kept else AGAIN
            axes.add_patch(
                FancyBboxPatch(
                    (3.05 + 1.75 * column, y),
                    1.0,
                    0.75,
                    boxstyle="round,pad=0.04",
                    facecolor=colour,
                    edgecolor=edge,
                    linestyle="-" if is_kept else "--",
                )
            )
            if not is_kept:
                axes.text(3.55 + 1.75 * column, y + 0.37, "again", ha="center", va="center")
        axes.text(8.8, y + 0.37, str(passes), ha="center", va="center", fontsize=12)
    note = (
        "blue: kept for the backward pass; dashed: computed again in it; a backward pass counts 2"
    )
    axes.text(0.1, 0.25, note, color=MUTED, fontsize=8.5)


def _empty(figure: Figure, width: float, height: float) -> Axes:
    figure.set_size_inches(width, height)
    axes = figure.subplots()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return axes


def _box(axes: Axes, x: float, y: float, texts: Sequence[str]) -> None:
    title, text, place = texts
    shape = FancyBboxPatch(
        (x, y), 2.6, 1.2, boxstyle="round,pad=0.03", facecolor="white", edgecolor=FAINT
    )
    axes.add_patch(shape)
    axes.text(x + 1.3, y + 1.0, title, ha="center", va="center", fontweight="bold", color=INK)
    axes.text(x + 1.3, y + 0.58, text, ha="center", va="center", fontsize=8, color=INK)
    axes.text(x + 1.3, y + 0.15, place, ha="center", va="center", fontsize=7.5, color=MUTED)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": MUTED})


def main() -> None:
    """Writes all pictures, the same bytes each time."""
    fixed: dict[Any, Any] = {"svg.hashsalt": "polyqwen"}
    with figure_style(), rc_context(fixed):
        for draw in (data_flow, curriculum, large_batch):
            figure = Figure(layout="constrained")
            draw(figure)
            path = IMAGES / f"concept_{draw.__name__}.svg"
            figure.savefig(path, metadata={"Date": None})
            print(f"written to {path}")


if __name__ == "__main__":
    main()
