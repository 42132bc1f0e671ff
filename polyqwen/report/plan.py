"""What a run will do, as tables: the same on the terminal and on the run's page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from polyqwen.report.format_values import MISSING, is_number, number

if TYPE_CHECKING:
    from rich.console import Console

Values = Mapping[str, Any]  # a plan, or a part of one, as `plain` makes it


class PlanTable(NamedTuple):
    """One table.

    Attributes:
        title: above it.
        headings: of the columns.
        lines: cells; an empty first cell goes on with the group of the line before it.
        left: how many columns are texts.
        note: a line under it.
    """

    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int
    note: str = ""


def plan_tables(plan: Values) -> list[PlanTable]:
    """All tables of a plan that have something to show.

    Args:
        plan: as ``plan.json`` has it.

    Raises:
        KeyError, TypeError, ValueError: it is not the plan of a run.
    """
    tables = [
        PlanTable(
            "Phases",
            (
                *("phase", "steps", "task", "rows/step", "share", "negatives", "passes"),
                *("weight", "of loss"),
            ),
            list(_phases(plan)),
            3,
            "Negatives that a row is contrasted with in its gathered micro-batch, mean. Weight: λ "
            f"· boost at the phase's first step, with the λ that {plan['weighting']} starts from; "
            "of loss: its share if all losses were alike.",
        ),
        PlanTable(
            "Data",
            ("task", "train rows", "drawn", "passes", "never seen", "dev rows", "test rows"),
            [_data(task) for task in plan["tasks"]],
            1,
        ),
        PlanTable(
            "Schedules",
            ("value", "of", "from", "to", "at step", "steps"),
            list(_schedules(plan["schedules"])),
            2,
            _intervals(plan["intervals"], plan["validated"]),
        ),
        PlanTable(
            "Parameters",
            ("part", "parameters", "trained", "frozen"),
            [_part(part) for part in _with_sum(plan["parts"])],
            1,
        ),
        PlanTable(
            "Optimizer groups",
            ("group", "tensors", "parameters", "peak rate", "weight decay"),
            [_group(group) for group in plan["groups"]],
            1,
        ),
        *([_memory(plan["memory"])] if plan["memory"] else []),
    ]
    return [table for table in tables if table.lines]


def _phases(plan: Values) -> Iterator[tuple[str, ...]]:
    for phase in plan["phases"]:
        name, steps = phase["name"], f"{phase['start']:,}–{phase['stop']:,}"
        for task in phase["tasks"]:
            yield (
                name,
                steps,
                task["task"],
                number(task["rows"], 1),
                f"{task['share']:.0%}",
                number(task["negatives"], 1),
                number(task["passes"], 2),
                number(task["weight"], 2),
                f"{task['loss_share']:.0%}",
            )
            name = steps = ""


def _data(task: Values) -> tuple[str, ...]:
    train, drawn, never = (_whole(task[key]) for key in ("train", "drawn", "never_seen"))
    passes = number(task["passes"], 2)
    return (task["task"], train, drawn, passes, never, _whole(task["dev"]), _whole(task["test"]))


def _whole(value: Any) -> str:
    return f"{value:,}" if is_number(value) else MISSING


def _schedules(lines: Sequence[Values]) -> Iterator[tuple[str, ...]]:
    for line in lines:
        start, end = (f"{line[key]:.3g}" for key in ("start", "end"))
        yield (line["name"], line["of"], start, end, f"{line['first']:,}", f"{line['steps']:,}")


def _intervals(found: Values, validated: Sequence[int]) -> str:
    intervals = ", ".join(f"{name} every {steps:,}" for name, steps in found.items())
    also = f"; validation also at {' and '.join(f'{step:,}' for step in validated)}"
    return f"Steps: {intervals}{also if validated else ''}."


def _with_sum(parts: Sequence[Values]) -> list[Values]:
    if not parts:
        return []
    sums = {key: sum(part[key] for part in parts) for key in ("parameters", "trained")}
    return [*parts, {"part": "all", **sums}]


def _part(part: Values) -> tuple[str, ...]:
    counts = (part["parameters"], part["trained"], part["parameters"] - part["trained"])
    return (part["part"], *(f"{count:,}" for count in counts))


def _group(group: Values) -> tuple[str, ...]:
    counts = (f"{group[key]:,}" for key in ("tensors", "parameters"))
    return (group["name"], *counts, f"{group['lr']:.3g}", f"{group['weight_decay']:g}")


def _memory(memory: Values) -> PlanTable:
    """One line: what a device holds at most, and what it has."""
    held = ["weights", "gradients", "optimizer"]
    held += [name for name in ("gathered", "casts") if memory[name]]
    names = {"casts": "half copies"}
    fixed = sum(memory[name] for name in held)
    activations = memory["activations"]
    total = None if activations is None else fixed + activations
    tokens = "" if memory["tokens"] is None else f"{memory['tokens']:,.0f} tokens a micro-batch"
    if memory["capped"]:
        tokens = f"at most {tokens}: texts were not looked at"
    return PlanTable(
        "Memory of a device",
        (*(names.get(name, name) for name in held), "activations", "sum", "free now"),
        [
            (
                *(size_of(memory[name]) for name in held),
                *(size_of(value) for value in (activations, total, memory["available"])),
            )
        ],
        0,
        f"Activations: an estimate, {tokens}, large_batch={memory['mode']}.",
    )


def size_of(bytes: float | None) -> str:
    """Such as 5.2 MB or 12.3 GB, in units of 1024; a dash for what is not known."""
    if not is_number(bytes):
        return MISSING
    size = float(bytes or 0.0)
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.1f} MB"


def headline(plan: Values) -> str:
    """What the run is, in one line."""
    head = plan["head"]
    return f"{head['run']}: " + ", ".join(
        f"{name} {value}" for name, value in head.items() if name != "run"
    )


def print_plan(plan: Values, out: "Console") -> None:
    """All of it on the terminal, about 100 columns wide; warnings last, where they are seen."""
    from rich import box
    from rich.table import Table

    out.print(f"[bold]plan of {headline(plan)}[/bold]", highlight=False)
    for shown in plan_tables(plan):
        title = f"[bold]{shown.title}[/bold]"
        table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD)
        table.pad_edge, table.show_edge = False, False
        for i, heading in enumerate(shown.headings):
            text = i < shown.left
            table.add_column(heading, justify="left" if text else "right", no_wrap=i != 1)
        for line in shown.lines:
            table.add_row(*line)
        out.print(table)
        if shown.note:
            out.print(shown.note, style="dim", highlight=False, markup=False)
        out.print()
    for note in plan["notes"]:
        out.print(f"note: {note}", style="dim", highlight=False, markup=False, soft_wrap=True)
    for warning in plan["warnings"]:
        line = f"warning: {warning['text']}"
        out.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
