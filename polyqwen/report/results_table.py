"""Results per task, language and source: trained beside untrained and chance."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from polyqwen.report.format_values import markdown_table, number

if TYPE_CHECKING:
    from rich.table import Table

Results = Mapping[str, Mapping[str, float]]  # task → metric → value
Groups = Mapping[str, Mapping[str, Mapping[str, Any]]]  # task → group → entry

HEADINGS = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "mrr": "MRR",
    "ndcg@10": "nDCG@10",
    "spearman": "Spearman",
    "gap": "Gap",
}
LABEL_HEADINGS = {"macro_f1": "F1", "accuracy": "Acc."}  # of tasks with labels
ALL_HEADINGS = {**HEADINGS, **LABEL_HEADINGS}
GROUP_HEADINGS = ("Task", "Group", "Rows", "Pool", "Metric", "Trained", "Untrained", "Gain, 95 %")


class ResultRow(NamedTuple):
    """One line of a results table; ``better`` compares each value with the untrained model's."""

    task: str
    model: str
    pool: str
    cells: tuple[str, ...]
    better: tuple[bool | None, ...]


def headings(results: Results) -> dict[str, str]:
    """Metric -> heading: those of pairs, those of labels, or both, as the tasks have them."""
    labels = [LABEL_HEADINGS.keys() & values.keys() for values in results.values()]
    pairs = not any(labels) or not all(labels)
    return {**(HEADINGS if pairs else {}), **(LABEL_HEADINGS if any(labels) else {})}


def table_rows(
    results: Results, baseline: Results | None = None, chance: Results | None = None
) -> list[ResultRow]:
    """Rows of the table, up to three per task.

    Args:
        results: metrics by task of the trained model.
        baseline: the same of the untrained model, or None.
        chance: the same of a random order, or None.

    Raises:
        ValueError: the baseline or chance names a task that has no results.
    """
    models = {"trained": results, "untrained": baseline or {}, "chance": chance or {}}
    for model, values in models.items():
        if unknown := sorted(set(values) - set(results)):
            raise ValueError(f"{model} has tasks {unknown}, results only {sorted(results)}")
    names = list(headings(results))
    return [
        _row(task, model, names, values[task], results[task], (baseline or {}).get(task, {}))
        for task in results
        for model, values in models.items()
        if task in values
    ]


def _row(
    task: str,
    model: str,
    names: Sequence[str],
    values: Mapping[str, float],
    trained: Mapping[str, float],
    untrained: Mapping[str, float],
) -> ResultRow:
    first = model == "trained"
    pool = trained.get("pool")
    better: list[bool | None] = []
    for name in names:
        pair = (values.get(name, math.nan), untrained.get(name, math.nan))
        known = first and not any(map(math.isnan, pair)) and pair[0] != pair[1]
        better.append(pair[0] > pair[1] if known else None)
    return ResultRow(
        task=task if first else "",
        model=model,
        pool=f"{pool:,.0f}" if first and pool is not None else "",
        cells=tuple(number(values.get(name)) for name in names),
        better=tuple(better),
    )


def results_table(
    results: Results,
    baseline: Results | None = None,
    chance: Results | None = None,
    title: str | None = None,
) -> "Table":
    """A table for the terminal, about 90 columns wide.

    Trained values are green above the untrained model's and red below.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Task", no_wrap=True, style="bold")
    table.add_column("Model", no_wrap=True)
    for heading in ("Pool", *headings(results).values()):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = table_rows(results, baseline, chance)
    colours = {True: "[green]{}[/]", False: "[red]{}[/]", None: "{}"}
    for i, row in enumerate(rows):
        cells = [colours[b].format(c) for c, b in zip(row.cells, row.better, strict=True)]
        last = i + 1 == len(rows) or bool(rows[i + 1].task)
        style = None if row.model == "trained" else "dim"
        table.add_row(row.task, row.model, row.pool, *cells, style=style, end_section=last)
    return table


def results_markdown(
    results: Results, baseline: Results | None = None, chance: Results | None = None
) -> str:
    """The same table in GitHub's Markdown; trained rows are bold where they beat the untrained."""
    names = ("Task", "Model", "Pool", *headings(results).values())
    lines = []
    for row in table_rows(results, baseline, chance):
        pairs = zip(row.cells, row.better, strict=True)
        cells = [f"**{cell}**" if better else cell for cell, better in pairs]
        lines.append((row.task, row.model, row.pool, *cells))
    return markdown_table(names, lines, left=(0, 1))


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
                    number(pool, 0),
                    name,
                    number(entry["trained"][name]),
                    number(entry["untrained"][name]),
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
    for i, heading in enumerate(GROUP_HEADINGS):
        table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)
    for line in group_rows(groups):
        table.add_row(*line)
    return table


def groups_markdown(groups: Groups) -> str:
    """The lines as a table in GitHub's Markdown."""
    return markdown_table(GROUP_HEADINGS, group_rows(groups), left=(0, 1))
