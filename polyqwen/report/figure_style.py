"""One look for all figures: a fixed colour per task, quiet axes."""

import zlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyqwen.atomic_files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, 2008: distinguishable with every common kind of colour blindness.
TASK_COLOURS = {
    "text_pair": "#0072B2",
    "ocr": "#D55E00",
    "vqa_single": "#009E73",
    "vqa_multi": "#CC79A7",
    "instruction": "#56B4E9",
}
OTHER_COLOURS = ("#E69F00", "#6A51A3", "#8C564B", "#637939", "#843C39", "#3B6E8F", "#B8860B")
INK, MUTED, FAINT = "#222222", "#777777", "#DDDDDD"
RIGHT, WRONG = "#1B7F3B", "#C0392B"

STYLE = Path(__file__).parents[1] / "assets" / "figures.mplstyle"  # INK and MUTED among its colours


def figure_style(fonts: Sequence[str] = ("DejaVu Sans",)) -> AbstractContextManager[Any]:
    """Matplotlib settings of this package, for a ``with`` block around drawing *and* saving."""
    from matplotlib import style

    return style.context([STYLE, {"font.family": list(fonts)}])


def task_colours(tasks: Iterable[str]) -> dict[str, str]:
    """A colour per task, known tasks first: fixed for these, by a hash of the name for others.

    Other tasks that fall on the same colour move on to the next free one in the order of their
    names, so a set of tasks looks the same in every figure.
    """
    names = set(tasks)
    colours = {task: colour for task, colour in TASK_COLOURS.items() if task in names}
    for task in sorted(names - set(colours)):
        start = zlib.crc32(task.encode()) % len(OTHER_COLOURS)
        wheel = OTHER_COLOURS[start:] + OTHER_COLOURS[:start]
        free = [colour for colour in wheel if colour not in colours.values()]
        colours[task] = (free or wheel)[0]
    return colours


def panels(count: int, width: float = 4.2, height: float = 2.8) -> "tuple[Figure, list[Axes]]":
    """A figure of ``count`` ≥ 1 equal panels, at most three beside each other."""
    from matplotlib.figure import Figure

    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    width = 7.5 if count == 1 else width
    height = 3.6 if count == 1 else height
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def save(figure: "Figure", out: Path, colours: int | None = None) -> Path:
    """Writes the figure, creating its folder, and returns where.

    Args:
        figure: drawn.
        out: file.
        colours: of a PNG's palette, at most 256: a third of the bytes; None keeps all of them.
    """
    out = Path(out)
    with atomic_write(out) as temporary:
        figure.savefig(temporary, format=out.suffix[1:])
        if colours is not None:
            reduce_colours(temporary, colours)
    return out


def reduce_colours(picture: Path, colours: int) -> None:
    """Gives a PNG a palette of at most 256 colours, thin lines' among them."""
    from PIL import Image

    with Image.open(picture) as image:
        plain = image.convert("RGB")
    # not the median cut, which spends them by area and gives lines of two colours one
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    plain.quantize(colours, method, kmeans=2, dither=dither).save(picture, "PNG", optimize=True)
