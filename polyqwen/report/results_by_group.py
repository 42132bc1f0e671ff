"""Results per language and source: what an average over a split hides."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Groups = Mapping[str, Mapping[str, Mapping[str, Any]]]  # task → group → entry

HEADINGS = ("Task", "Group", "Rows", "Pool", "Metric", "Trained", "Untrained", "Gain, 95 %")


def group_rows(groups: Groups) -> list[tuple[str, ...]]:
    """One line per task and group, as texts.

    Args:
        groups: task -> group -> entry with ``rows``, ``trained`` and ``untrained`` metrics and
            ``advantage_over_untrained`` (metric, difference, low, high).
    """
    lines: list[tuple[str, ...]] = []
    for task, entries in groups.items():
        for group, entry in entries.items():
            gain = entry["advantage_over_untrained"]
            name, pool = gain["metric"], entry["trained"].get("pool")
            lines.append(
                (
                    task,
                    group,
                    str(entry["rows"]),
                    "–" if pool is None else str(int(pool)),
                    name,
                    f"{entry['trained'][name]:.3f}",
                    f"{entry['untrained'][name]:.3f}",
                    f"{gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
                )
            )
    return lines


def groups_table(groups: Groups) -> "Table":
    """The lines as a table for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="per language and source", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)
    for line in group_rows(groups):
        table.add_row(*line)
    return table


def groups_markdown(groups: Groups) -> str:
    """The lines as a table in GitHub's Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|:--|:--|" + "--:|" * (len(HEADINGS) - 2)]
    lines += ["| " + " | ".join(line) + " |" for line in group_rows(groups)]
    return "\n".join(lines) + "\n"
