"""Write the YAML file of a task of your own."""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from polyqwen.atomic_files import write_text
from polyqwen.config.conf import TRAIN, conf_folders, working_conf

TASK = """\
# @package _global_
# {title}
tasks:
  {name}:
    _target_: polyqwen.data.rows.task.Task
    fields: {{{fields}}} # ours: the column of your rows
{label}    prefix: <{name}>
    share: 1.0 # rows beside other tasks'
    batch_size: null
    visual_tokens: 768
losses:
  {name}:
{loss}
metrics:
  {name}:
{metrics}
weighting:
  static: {{{name}: 1.0}}
"""
SCORED = """\
    _target_: polyqwen.losses.scored_text.ScoredTextLoss
    temperature: 0.07
    score_weight: 3.0
    rank_weight: 1.0
    rank_margin: 0.05
    score_gate: weight # a pair pulls together as much as its score says
    symmetric: false"""
PAIRS = """\
    _target_: polyqwen.losses.info_nce.InfoNCELoss
    temperature: 0.07
    symmetric: true"""
GROUNDED = """\
    _target_: polyqwen.losses.grounded.GroundedLoss
    temperature: 0.07
    triplet_weight: 1.0
    margin: 0.2
    symmetric: false"""
LABELS = """\
    _target_: polyqwen.losses.classification.ClassificationLoss
    classes: ${{tasks.{name}.classes}}
    scale: 10.0
    label_smoothing: 0.0
    class_weights: null # {{CLASS: 4.0}} for rare ones"""
PAIRED = """\
    _target_: polyqwen.metrics.task_metrics.TaskMetrics
    scored: {scored}"""
CLASSIFIED = """\
    _target_: polyqwen.metrics.classification.ClassificationMetrics
    classes: ${{tasks.{name}.classes}}"""


class TaskKind(NamedTuple):
    """What tasks of a kind have in common; fields are given with their usual columns."""

    title: str
    fields: dict[str, str]
    loss: str
    metrics: str
    row: str


KINDS = {
    "pairs": TaskKind(
        "Text pairs: one text finds the other.",
        {"query_text": "text_a", "document_text": "text_b", "negatives": "negatives"},
        PAIRS,
        PAIRED.format(scored="false"),
        "two texts that belong together",
    ),
    "scored": TaskKind(
        "Scored text pairs: similarity in [0, 1] of two texts.",
        {"query_text": "text_a", "document_text": "text_b", "score": "score"},
        SCORED,
        PAIRED.format(scored="true") + "\n    min_score: 0.9 # a matching pair has at least this",
        "two texts and their similarity between 0 and 1",
    ),
    "ocr": TaskKind(
        "Pictures of texts: the picture finds its transcription.",
        {"query_image": "image", "document_text": "text"},
        GROUNDED,
        PAIRED.format(scored="false"),
        "a picture's path, relative to the data folder, and the text on it",
    ),
    "vqa": TaskKind(
        "Questions about pictures: a picture and a question find the answer.",
        {
            "query_image": "image",
            "query_text": "question",
            "document_text": "answer",
            "negatives": "negatives",
        },
        GROUNDED,
        PAIRED.format(scored="false"),
        "a picture's path, relative to the data folder, a question and its answer",
    ),
    "labels": TaskKind(
        "Labelled texts: a linear head tells the classes.",
        {"query_text": "text", "labels": "label"},
        LABELS,
        CLASSIFIED,
        "a text and its class (or a mapping of label to class; null: no label)",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task's name and kind, and where its columns differ from the usual ones."""
    parser.add_argument("name", help="of the task, and of the folder with its rows")
    parser.add_argument("--kind", choices=list(KINDS), default="pairs")
    parser.add_argument(
        "--fields", nargs="+", default=[], metavar="FIELD=COLUMN", help="where columns differ"
    )
    parser.add_argument("--classes", nargs="+", default=[], help="of --kind labels")
    parser.add_argument(
        "--conf", type=Path, default=working_conf(), help="folder of configuration files"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the file and prints what to do next."""
    new_task(arguments.name, arguments.kind, arguments.fields, arguments.classes, arguments.conf)


def new_task(name: str, kind: str, fields: list[str], classes: list[str], conf: Path) -> Path:
    """Writes ``conf/task/<name>.yaml`` and says what to do next.

    Args:
        name: small letters, digits and underscores.
        kind: a key of `KINDS`.
        fields: ``FIELD=COLUMN`` where a column has another name than usual.
        classes: of a label task, at least two.
        conf: folder of the configuration, that of the working folder or one for ``--config-dir``.

    Raises:
        ValueError: a name or field that cannot be used, or a task of this name is there already.
    """
    from polyqwen.training.step import check_usable  # imports torch

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"the task's name {name!r} must be small letters, digits and _, as in my_receipts"
        )
    check_usable([name])
    for folder in {*conf_folders(), conf}:
        if (there := folder / "task" / f"{name}.yaml").exists():
            raise ValueError(f"{there} is there already; choose another name, or edit it")
    columns = {**KINDS[kind].fields, **_columns(fields, kind)}
    text = _yaml(name, KINDS[kind], columns, _classes(classes, kind))
    path = conf / "task" / f"{name}.yaml"
    write_text(path, text)
    print(f"written to {path}")
    print(_next(name, kind, columns, conf))
    return path


def _columns(given: list[str], kind: str) -> dict[str, str]:
    known = KINDS[kind].fields
    columns: dict[str, str] = {}
    for entry in given:
        field, _, column = entry.partition("=")
        columns[field] = column
        if field not in known or not column:
            raise ValueError(
                f"--fields {field}={column}: give FIELD=COLUMN with a field of --kind {kind}: "
                f"{', '.join(known)}"
            )
    return columns


def _classes(classes: list[str], kind: str) -> list[str]:
    if kind != "labels" and classes:
        raise ValueError(f"--classes {' '.join(classes)}: only --kind labels has classes")
    if kind == "labels" and len(set(classes)) < max(2, len(classes)):
        raise ValueError("--kind labels needs --classes A B …, at least 2 different names")
    return classes


def _yaml(name: str, kind: TaskKind, columns: dict[str, str], classes: list[str]) -> str:
    label = ""
    if classes:
        label = f"    label: {name}\n    classes: [{', '.join(map(_quoted, classes))}]\n"
    return TASK.format(
        title=kind.title,
        name=name,
        fields=", ".join(f"{field}: {_quoted(column)}" for field, column in columns.items()),
        label=label,
        loss=kind.loss.format(name=name),
        metrics=kind.metrics.format(name=name),
    )


def _quoted(text: str) -> str:
    """As YAML reads it back; 'no', '3' and the like would be other things than texts."""
    plain = re.fullmatch(r"[A-Za-z_][\w-]*", text, re.ASCII)
    spoken = text.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    return text if plain and not spoken else "'" + text.replace("'", "''") + "'"


def _next(name: str, kind: str, columns: dict[str, str], conf: Path) -> str:
    row = ", ".join(f'"{column}": …' for column in columns.values() if column != "negatives")
    where = "" if conf.resolve() in map(Path.resolve, conf_folders()) else f" --config-dir {conf}"
    run = f"experiment=own_data data.root=FOLDER 'task=[{name}]'"
    return (
        f"  rows    FOLDER/{name}/{{train,dev,test}}.jsonl, .parquet or .arrow: {{{row}}}\n"
        f"          ({KINDS[kind].row})\n"
        f"  check   python -m polyqwen validate{where} {run}\n"
        f"  train   {TRAIN}{where} {run}"
    )
