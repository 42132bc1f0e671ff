"""The numbers in full, as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from polyqwen.atomic_files import write_text
from polyqwen.metrics.paired import Difference, Estimate
from polyqwen.report.comparison.board import Board
from polyqwen.runs.find import common_folder
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import score, value_of


def write_csv(board: Board, path: Path) -> None:
    """One line per variant, all numbers in full."""
    lines = []
    for row in board.rows:
        line: dict[str, object] = {"variant": row.name, "seeds": len(row.seeds)}
        line |= _numbers("score", row.score) | _numbers("difference", row.difference)
        line |= {"p_holm": row.p, "gain_percent": row.gain, "untrained": row.untrained.mean}
        for task in board.tasks:
            line |= _numbers(task, row.tasks[task])
            line |= _numbers(f"{task}_difference", row.task_differences[task])
            line |= {
                f"{task}_p_holm": row.task_p[task],
                f"{task}_gain_percent": row.gains[task],
            }
        line |= {
            "seconds_per_step": row.step_seconds,
            "cost": row.cost,
            "fit_seconds": row.fit_seconds,
        }
        lines.append(line)
    _write(path, lines)


def write_runs(variants: Mapping[str, Sequence[RunFolder]], tasks: list[str], path: Path) -> None:
    """One line per run; folders as seen from the one that holds them all."""
    root = common_folder(run for runs in variants.values() for run in runs)
    lines = [
        {
            "variant": name,
            "seed": run.seed,
            "score": score(run, tasks),
            **{task: value_of(run, task, tasks) for task in tasks},
            **run.timing,
            "folder": str(run.path.absolute().relative_to(root)),
        }
        for name, runs in variants.items()
        for run in runs
    ]
    _write(path, lines)


def _numbers(name: str, value: Estimate | Difference) -> dict[str, float]:
    return {f"{name}_mean": value.mean, f"{name}_low": value.low, f"{name}_high": value.high}


def _write(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())
