"""Numbers of rows of a run: of prepared tables, or counted in the files; no picture is opened."""

from collections.abc import Mapping

import numpy as np
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from polyqwen.build.instantiate import make, make_part
from polyqwen.build.plan.row_statistics import (
    SAMPLE,
    means_of_records,
    means_of_table,
    rows_with_label,
)
from polyqwen.build.plan.rows import SplitRows
from polyqwen.config.errors import one_line
from polyqwen.data.rows.sources import GeneratedSource, Source
from polyqwen.data.rows.task import Task
from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.data.tables.labels import LabelBook
from polyqwen.data.tables.negatives import given_negatives
from polyqwen.data.tables.splits import Splits

GENERATED = "polyqwen.data.rows.sources.GeneratedSource"
SPLITS = ("train", "dev", "test")

Counted = dict[str, SplitRows]


def count_rows(
    cfg: DictConfig, tasks: Mapping[str, Task], curriculum: Curriculum, splits: Splits | None
) -> tuple[Counted, list[str]]:
    """Rows of all tasks, and notes of what could not be counted.

    A generated data set that is not there yet is not made; its source says its rows. Rows that
    ``data.bad_rows=skip`` would leave out are counted too where they are not prepared.

    Args:
        cfg: the configuration.
        tasks: of the run.
        curriculum: of the run.
        splits: of the run, prepared; None looks for what an earlier run has prepared.
    """
    node = cfg.data.source
    if splits is None and node["_target_"] == GENERATED and not _is_made(node):
        sizes = _left(SplitRows(node.train_rows, node.eval_rows, node.eval_rows), cfg.data)
        note = "the generated data set is not made yet: tokens are the most that rows may have"
        return dict.fromkeys(tasks, sizes), [note]
    try:
        source: Source = splits.source if splits else make(node)
    except InstantiationException as error:
        unknown = dict.fromkeys(tasks, SplitRows(None, None, None))
        return unknown, [f"the tasks' rows are not known: {one_line(error.__cause__ or error)}"]
    splits = splits or _splits(cfg, tasks, curriculum)
    counted, notes, book = Counted(), list[str](), LabelBook(tasks)
    for name, task in tasks.items():
        try:
            counted[name] = _counted(cfg.data, name, task, source, splits, book)
        except (OSError, ValueError) as error:
            notes.append(f"rows of {name} are not known: {one_line(error)}")
            counted[name] = SplitRows(None, None, None)
    return counted, notes


def _is_made(node: DictConfig) -> bool:
    arguments = {str(key): value for key, value in node.items() if key != "_target_"}
    return GeneratedSource.is_made(**arguments)


def _splits(cfg: DictConfig, tasks: Mapping[str, Task], curriculum: Curriculum) -> Splits | None:
    """What finds prepared tables; None where the tokenizer, which they depend on, is not here."""
    prefixes = {name: task.prefix for name, task in tasks.items()}
    try:
        tokens = make_part("model.tokens", cfg.model.tokens, prefixes=prefixes)
    except InstantiationException as error:
        if isinstance(error.__cause__, OSError):
            return None
        raise
    parts = {"tasks": tasks, "tokens": tokens, "curriculum": curriculum, "separate": False}
    splits: Splits = make_part("data", cfg.data, **parts).splits
    return splits


def _counted(
    data: DictConfig,
    name: str,
    task: Task,
    source: Source,
    splits: Splits | None,
    book: LabelBook,
) -> SplitRows:
    """One task's rows, in the best way there is."""
    if splits is not None and all(splits.is_prepared(name, split) for split in SPLITS):
        return _prepared(name, task, splits, data.eval_rows)
    readers = [source.reader(task.folder or name, split) for split in SPLITS]
    labelled = book.shares_rows(name)
    train, dev, test = (
        rows_with_label(reader, name, task, book) if labelled else reader.count()
        for reader in readers
    )
    if splits is None:
        means = means_of_records(readers[0], task)
    else:
        means = means_of_table(splits.sample(name, "train", SAMPLE), task, splits.pictures)
    return _left(SplitRows(train, dev, test, *means), data)


def _prepared(name: str, task: Task, splits: Splits, eval_rows: int | None) -> SplitRows:
    table = splits.trained(name)
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), SAMPLE)).astype(int))
    means = means_of_table(table.select(rows), task, splits.pictures)
    means = means._replace(given=given_negatives(table) / len(table))
    dev = len(splits.evaluated(name, "dev"))
    dev = dev if eval_rows is None else min(dev, eval_rows)
    return SplitRows(len(table), dev, len(splits.table(name, "test")), *means)


def _left(sizes: SplitRows, data: DictConfig) -> SplitRows:
    """What remains for each use: trusted rows are taken out of dev, and perhaps trained on."""
    train, dev, trusted = sizes.train or 0, sizes.dev or 0, data.get("trusted_rows", 0)
    dev = max(dev - trusted, 0)
    return sizes._replace(
        train=train + trusted * bool(data.get("train_on_trusted")),
        dev=dev if data.eval_rows is None else min(dev, data.eval_rows),
    )
