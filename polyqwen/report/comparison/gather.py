"""Reads finished runs and compares them: estimates, claims and the texts beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyqwen.report.comparison.axes import Axis, build_axes
from polyqwen.report.comparison.board import Board, Variants, build_board
from polyqwen.report.comparison.claims import Tested, put_to_the_test, read_claim
from polyqwen.report.page.render import render_text
from polyqwen.runs.find import find_runs
from polyqwen.runs.run_folder import NOT_BEGUN, RunFolder
from polyqwen.runs.scores import RETENTION
from polyqwen.runs.variants import group_runs

MOST_WARNINGS = 12
UNTITLED = "Comparison of runs"  # of no study


class Words(NamedTuple):
    """Texts of a comparison.

    Attributes:
        title: of the page.
        lead: one paragraph: what is compared.
        warnings: runs that do not count, and why.
        notes: how the numbers are made.
        settings: variant -> the overrides that make it.
        common: overrides of all variants: the study's, then those of its command line.
    """

    title: str
    lead: str
    warnings: Sequence[str]
    notes: Sequence[str]
    settings: Mapping[str, str]
    common: str


class Comparison(NamedTuple):
    """All that is known of some runs beside each other.

    Attributes:
        board: estimates and differences.
        variants: name -> its finished runs.
        claims: of the study, tested.
        axes: keys that differ between the runs, and their effects.
        words: what is said beside the numbers.
        unfinished: runs that do not count, and why.
    """

    board: Board
    variants: Variants
    claims: list[Tested]
    axes: list[Axis]
    words: Words
    unfinished: list[RunFolder]

    @property
    def runs(self) -> list[RunFolder]:
        """The finished runs, the best variant's first."""
        return [run for row in self.board.rows for run in self.variants[row.name]]


def gather(paths: Sequence[Path], baseline: str | None = None) -> Comparison:
    """Reads and compares all runs found.

    Raises:
        ValueError: a folder is missing or has no runs, none is finished, there is no such baseline,
            or the runs have no task in common.
    """
    runs, manifests = find_runs(paths)
    finished = [run for run in runs if not run.problem]
    unfinished = [run for run in runs if run.problem]
    if not finished:
        raise ValueError(
            f"none of {len(unfinished)} runs is finished; the first: {_told(unfinished[0])}"
        )
    variants, notes = group_runs(finished)
    manifest = manifests[0] if len(manifests) == 1 else {}
    board = build_board(variants, baseline or _default_baseline(variants, manifest))
    claims = _claims(manifest, variants, board)
    axes = build_axes([run for own in variants.values() for run in own], board.tasks)
    words = _words(board, variants, manifest, [*_warnings(unfinished), *notes])
    return Comparison(board, variants, claims, axes, words, unfinished)


def _default_baseline(variants: Variants, manifest: dict[str, Any]) -> str:
    named = manifest.get("baseline")
    return str(named) if named in variants else next(iter(variants))


def _claims(manifest: dict[str, Any], variants: Variants, board: Board) -> list[Tested]:
    claims = {name: read_claim(name, own) for name, own in manifest.get("claims", {}).items()}
    return put_to_the_test(claims, variants, board.tasks)


def _told(run: RunFolder) -> str:
    name = f"{run.variant} seed {run.seed}" if run.variant else str(run.path)
    return f"{name} does not count: {run.problem}"


def _warnings(unfinished: Sequence[RunFolder]) -> list[str]:
    """A line for each run that began; the others are only counted."""
    begun = [_told(run) for run in unfinished if run.problem != NOT_BEGUN]
    waiting = len(unfinished) - len(begun)
    if len(begun) > MOST_WARNINGS:
        begun = [*begun[:MOST_WARNINGS], f"and {len(begun) - MOST_WARNINGS} more"]
    return [*begun, *([f"{waiting} runs have not begun"] if waiting else [])]


def _words(
    board: Board, variants: Variants, manifest: dict[str, Any], warnings: list[str]
) -> Words:
    if "baseline" in manifest and manifest["baseline"] not in variants:
        warnings.append(f"the study's baseline {manifest['baseline']} has no finished run")
    left_out = {t for own in variants.values() for run in own for t in run.tested_tasks}
    if left_out := left_out - set(board.tasks):
        named = ", ".join(sorted(left_out))
        warnings.append(f"not all runs were tested on {named}: left out of everything")
    planned = manifest.get("variants", {})
    most = max(len(row.seeds) for row in board.rows)
    notes = render_text(
        "comparison_notes.txt.j2",
        board=board,
        jobs=manifest.get("jobs"),
        most_seeds=most,
        retention=any(c.get("metric") == RETENTION for c in manifest.get("claims", {}).values()),
    )
    return Words(
        title=f"Study: {manifest['name']}" if manifest else UNTITLED,
        lead=_lead(board, sum(map(len, variants.values()))),
        warnings=warnings,
        notes=notes.splitlines(),
        settings={
            row.name: " ".join(planned.get(row.name) or _settings(variants[row.name][0]))
            for row in board.rows
        },
        common=" ".join([*manifest.get("common", []), *_given(manifest)]),
    )


def _given(manifest: dict[str, Any]) -> list[str]:
    """Overrides of the study's command line that hold for its runs."""
    given = [str(override) for override in manifest.get("given", [])]
    return [override for override in given if not override.lstrip("+~").startswith("study")]


def _settings(run: RunFolder) -> list[str]:
    return [f"{key}={value}" for key, value in run.compared_overrides.items()]


def _lead(board: Board, runs: int) -> str:
    """What is compared, in one paragraph."""
    seeds = sorted({seed for row in board.rows for seed in row.seeds})
    named = ", ".join(map(str, seeds[:6])) + (", …" if len(seeds) > 6 else "")
    tasks = ", ".join(f"{task} ({metric})" for task, metric in board.metrics.items())
    return (
        f"{len(board.rows)} variants, {runs} finished runs, seeds {named}. Baseline: "
        f"{board.baseline}. Test split; the score is the mean of {tasks}."
    )
