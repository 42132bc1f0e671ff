"""Write the YAML file of a task of your own."""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from polyqwen.atomic_files import write_text
from polyqwen.config.conf import TRAIN, conf_folders, working_conf

KINDS = ("pairs", "scored", "ocr", "vqa", "labels")
ASSETS = Path(__file__).parents[2] / "assets" / "new_task"


class TaskKind(NamedTuple):
    """What the tasks of a kind have in common; fields are given with their usual columns."""

    title: str
    fields: dict[str, str]
    row: str


def task_kind(name: str) -> TaskKind:
    """A kind of `KINDS`, from the assets."""
    import yaml

    kinds = yaml.safe_load((ASSETS / "kinds.yaml").read_text(encoding="utf-8"))
    return TaskKind(**kinds[name])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task's name and kind, and where its columns differ from the usual ones."""
    parser.add_argument("name", help="of the task, and of the folder with its rows")
    parser.add_argument("--kind", choices=KINDS, default="pairs")
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
        kind: one of `KINDS`.
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
    columns = {**task_kind(kind).fields, **_columns(fields, kind)}
    text = _yaml(name, kind, columns, _classes(classes, kind))
    path = conf / "task" / f"{name}.yaml"
    write_text(path, text)
    print(f"written to {path}")
    print(_next(name, kind, columns, conf))
    return path


def _columns(given: list[str], kind: str) -> dict[str, str]:
    known = task_kind(kind).fields
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


def _yaml(name: str, kind: str, columns: dict[str, str], classes: list[str]) -> str:
    from jinja2 import Environment, StrictUndefined

    settings = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = settings.from_string((ASSETS / "task.yaml.j2").read_text(encoding="utf-8"))
    return template.render(
        name=name,
        kind=kind,
        title=task_kind(kind).title,
        fields=", ".join(f"{field}: {_quoted(column)}" for field, column in columns.items()),
        classes=", ".join(map(_quoted, classes)),
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
        f"          ({task_kind(kind).row})\n"
        f"  check   python -m polyqwen validate{where} {run}\n"
        f"  train   {TRAIN}{where} {run}"
    )
