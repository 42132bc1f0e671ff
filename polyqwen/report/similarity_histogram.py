"""How far the cosines of matching pairs stand apart from those of non-matching ones."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from polyqwen.report.figure_style import MUTED, figure_style, panels, save

MATCHING, NON_MATCHING = "#0072B2", "#999999"


def plot_similarity_histogram(
    matching: ArrayLike, non_matching: ArrayLike, title: str, out: Path, bins: int = 60
) -> Path:
    """Two densities over the cosine, with their means and the gap between them.

    Args:
        matching: (R,) cosines of matching pairs.
        non_matching: (M,) cosines of non-matching pairs.
        title: of the figure, such as the task and the step.
        out: file to write.
        bins: number of bins over the range of both.

    Raises:
        ValueError: a side is empty or holds no finite value.
    """
    groups = {"matching": (matching, MATCHING), "non-matching": (non_matching, NON_MATCHING)}
    values = {name: _finite(name, cosines) for name, (cosines, _) in groups.items()}
    together = np.concatenate(list(values.values()))
    low, high = float(together.min()), float(together.max())
    if high - low < 1e-3:  # a collapsed model has one cosine and still deserves a figure
        low, high = low - 0.05, high + 0.05
    with figure_style():
        figure, (ax,) = panels(1)
        for name in ("non-matching", "matching"):
            cosines, colour = values[name], groups[name][1]
            # Shares instead of a density: they stay readable when one group is a single spike.
            weights = np.full(len(cosines), 1 / len(cosines))
            label = f"{name}: n = {len(cosines):,}, mean {cosines.mean():.3f}"
            ax.hist(
                cosines,
                bins,
                range=(low, high),
                weights=weights,
                color=colour,
                alpha=0.55,
                label=label,
            )
            ax.axvline(cosines.mean(), color=colour, linewidth=1.4)
        gap = values["matching"].mean() - values["non-matching"].mean()
        ax.plot([], [], " ", label=f"gap {gap:.3f}")
        ax.set_title(title)
        ax.set_xlabel("cosine of query and document")
        ax.set_ylabel("share of pairs per bin", color=MUTED)
        ax.yaxis.set_major_formatter("{x:.0%}")
        figure.legend(loc="outside lower center", ncols=3)
        return save(figure, out)


def _finite(name: str, cosines: ArrayLike) -> np.ndarray:
    values = np.asarray(cosines, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError(f"no finite {name} cosines; plot only splits with both kinds of pairs")
    return values
