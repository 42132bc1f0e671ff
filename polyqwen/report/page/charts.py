"""What the page's script draws: lines over optimizer steps, as data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from polyqwen.runs.history import Series

MOST = 500  # points of a line; more cannot be told apart on a screen
DIGITS = 5


class Lane(NamedTuple):
    """Events or stretches of steps under a chart, in a row with a name."""

    name: str
    at: Sequence[float] = ()
    spans: Sequence[tuple[float, float]] = ()
    colour: str = ""


class Chart(NamedTuple):
    """The placeholder of a chart, which the page's script draws there.

    Attributes:
        key: of what to draw.
        title: above the chart.
        note: a line under the title, what to look for.
        wide: whether it fills the width of the page.
    """

    key: str
    title: str
    note: str
    wide: bool


class Charts:
    """Collects a page's charts and gives their placeholders.

    Args:
        colours: of lines by name, in the order of the legends; others get one of the script's.
        switch: steps at which phases begin, drawn as dashed lines.
    """

    def __init__(self, colours: Mapping[str, str], switch: Sequence[int] = ()) -> None:
        self.colours, self.switch = dict(colours), list(switch)
        self.specs: dict[str, Any] = {}

    def lines(
        self, title: str, series: Mapping[str, Series], note: str = "", **options: Any
    ) -> Chart | None:
        """A chart of lines; None if no value is known.

        Args:
            title: above the chart.
            series: name -> values over steps.
            note: a line under the title, what to look for.
            options: ``smooth`` shows noisy lines behind their moving average, ``zero`` takes 0 into
                the range, ``stack`` draws shares on top of each other, ``log`` a logarithmic axis,
                ``lanes`` are `Lane`s, ``bands`` are (name, start, stop), ``wide`` fills the width.
        """
        drawn = [
            self._line(name, *decimated(series[name])) for name in sorted(series, key=self._place)
        ]
        drawn = [line for line in drawn if any(y is not None for y in line["y"])]
        if not drawn:
            return None
        options["lanes"] = [lane._asdict() for lane in options.get("lanes", ())]
        wide = bool(options.pop("wide", False))
        spec = {"title": title, "series": drawn, "switch": self.switch, **options}
        return self._placed(spec, title, note, wide)

    def scatter(
        self,
        title: str,
        points: Mapping[str, Iterable[tuple[float, float, str]]],
        note: str = "",
        **options: Any,
    ) -> Chart:
        """Points (x, y, label) by group; see the options of `lines` and ``labels`` of x."""
        drawn = []
        for name, group in points.items():
            x, y, labels = (list(column) for column in zip(*group, strict=True))
            drawn.append(self._line(name, x, _plain(y)) | {"labels": labels, "dots": True})
        return self._placed({"title": title, "series": drawn, **options}, title, note, False)

    def _line(self, name: str, x: Sequence[float], y: Sequence[float | None]) -> dict[str, Any]:
        return {"name": name, "colour": self.colours.get(name, ""), "x": list(x), "y": list(y)}

    def _place(self, name: str) -> int:
        """Known names in their order, then the others as they come."""
        return list(self.colours).index(name) if name in self.colours else len(self.colours)

    def _placed(self, spec: dict[str, Any], title: str, note: str, wide: bool) -> Chart:
        key = f"c{len(self.specs)}"
        self.specs[key] = spec
        return Chart(key, title, note, wide)


def drawn(charts: Iterable[Chart | None]) -> list[Chart]:
    """Those with anything to draw."""
    return [chart for chart in charts if chart is not None]


def decimated(series: Series, most: int = MOST) -> tuple[list[float], list[float | None]]:
    """Steps and values, at most ``most`` of them, of which each is a logged one.

    Of every stretch its first value stays; where values are not finite there is a gap.
    """
    stride = max(1, -(-len(series.steps) // most))
    keep = list(range(0, len(series.steps), stride))
    if keep and keep[-1] != len(series.steps) - 1:
        keep.append(len(series.steps) - 1)
    return [series.steps[i] for i in keep], _plain([series.values[i] for i in keep])


def _plain(values: Iterable[float]) -> list[float | None]:
    return [float(f"{v:.{DIGITS}g}") if math.isfinite(v) else None for v in values]
