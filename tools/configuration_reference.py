"""The page of all configuration keys, from conf/ and the docstrings of what it builds.

`tools.stage_docs` puts it into the site; python -m tools.configuration_reference prints it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from polyqwen.config.signatures import NoSuchTarget, NotStatic, signature_of, walk
from polyqwen.config.sources import Definition, look_up_expression
from polyqwen.config.toplevel import CONF

PAGE = Path("docs/configuration.md")  # in the site; it is not kept in the repository
HEAD = """\
# Configuration reference

Every group of `conf/`, its options, their keys, from the files and the docstrings of what they
build. *Value* is what the file sets; *(code)* marks a default of the code
that the file leaves alone: add such a key with a plus, `+losses.ocr.given_only=true`. Any value is
set on the command line, `python train.py seed=1 weighting=static`; a key or value that does not
fit is refused before training.
"""
ORDER = (
    *("model", "data", "task", "curriculum", "library", "widths", "weighting", "large_batch"),
    "optimizer",
    *("callbacks", "trainer", "logger", "experiment", "hparams_search", "eval", "study"),
)
PARTS = "parts"  # what files of several options have in common
Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Meaning(NamedTuple):
    """What the code says of one argument."""

    type: str = ""
    default: str = ""
    text: str = ""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_primary("train", "A run"), *_primary("evaluate", "An evaluation")]
    others = {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {*ORDER}
    for group in (*ORDER, *sorted(others)):
        files = sorted((CONF / group).rglob("*.yaml"))
        folders = sorted({file.parent for file in files}, key=lambda f: (len(f.parts), f))
        for folder in folders:
            parts += _group(folder, [file for file in files if file.parent == folder])
    return "\n".join(parts).rstrip() + "\n"


def _primary(name: str, title: str) -> Iterator[str]:
    yield f"## {title}: `{name}.py`\n"
    yield from _option(CONF / f"{name}.yaml")


def _group(folder: Path, files: list[Path]) -> Iterator[str]:
    name = folder.relative_to(CONF).as_posix()
    chosen = name.partition("/")[0] != PARTS  # else other files are built on it
    yield f"## `{name}{'=' if chosen else ''}`\n"
    for file in files:
        yield f"### `{name}{'=' if chosen else '/'}{file.stem}`\n"
        yield from _option(file)


def _option(file: Path) -> Iterator[str]:
    """What a file says of itself, what it is built on, its keys."""
    text = file.read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    said = [line[2:] for line in text.splitlines() if re.match(r"# (?!@)", line)]
    if said:
        yield " ".join(said) + "\n"
    if built_on := [_named(entry) for entry in values.pop("defaults", []) if entry != "_self_"]:
        yield f"Built on {', '.join(f'`{entry}`' for entry in built_on)}.\n"
    values.pop("hydra", None)
    rows = list(_rows(values, "", _comments(text)))
    if rows:
        yield "| key | value | type | meaning |\n|:--|:--|:--|:--|"
        yield "\n".join(rows) + "\n"


def _named(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    return ", ".join(f"{key}: {_brief(value)}" for key, value in entry.items())


def _rows(values: Mapping[str, Any], path: str, comments: Mapping[str, str]) -> Iterator[str]:
    """A row for each key, and for what a node's class would take beside."""
    known: dict[str, Meaning] = {}
    if target := values.get("_target_"):
        known = meanings(target)
        yield _row(f"{path}_target_", f"`{target}`", "", summary(target))
    for key, value in values.items():
        where, meaning = f"{path}{key}", known.get(key, Meaning())
        if key in ("_target_", "_partial_"):
            continue
        if isinstance(value, dict) and value and not meaning.text:
            if where in comments:
                yield _row(where, "", "", comments[where])
            yield from _rows(value, f"{where}.", comments)
        else:
            text = meaning.text or comments.get(where, "")
            yield _row(where, f"`{_brief(value)}`", meaning.type, text)
    if target and target.startswith("polyqwen."):
        for key, meaning in known.items():
            if key not in values and meaning.default:
                value = f"`{meaning.default}` (code)"
                yield _row(f"{path}{key}", value, meaning.type, meaning.text)


def _row(key: str, value: str, kind: str, text: str) -> str:
    shown = f"`{kind}`" if kind else ""
    text = re.sub(r"<(?![^`]*`(?:[^`]*`[^`]*`)*[^`]*$)", "&lt;", text.replace("``", "`"))
    cells = (f"`{key}`", value, shown, text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _brief(value: Any) -> str:
    """A value as it would be given on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_brief(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_brief, value)) + "]"
    return " ".join(str(value).split()) or "''"


def _comments(text: str) -> dict[str, str]:
    """Dotted key → the comment behind it on its line."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"( *)([\w]+):", line)
        if match is None:
            continue
        indent = len(match[1])
        path = [(depth, key) for depth, key in path if depth < indent] + [(indent, match[2])]
        if (comment := re.search(r"\s# (.+)$", line)) is not None:
            found[".".join(key for _, key in path)] = comment[1]
    return found


def summary(target: str) -> str:
    """First sentence of the docstring."""
    return _docstring(target).split("\n\n")[0].replace("\n", " ")


def meanings(target: str) -> dict[str, Meaning]:
    """Argument → type, default and docstring of a target, inherited ones too; sorted by name."""
    try:
        parameters = signature_of(target).parameters
    except (NoSuchTarget, NotStatic):
        return {}
    texts: dict[str, str] = {}
    defaults: dict[str, str] = {}
    for definition in _sources(target):
        texts |= _arguments(ast.get_docstring(definition) or "")
        defaults |= _defaults(definition)
    return {
        name: Meaning(
            "" if p.annotation is None else ast.unparse(p.annotation),
            defaults.get(name, ""),
            texts.get(name, ""),
        )
        for name, p in sorted(parameters.items())
    }


def _docstring(target: str) -> str:
    node = walk(target)[0].node
    return (isinstance(node, Documented) and ast.get_docstring(node)) or ""


def _sources(target: str) -> Iterator[Documented]:
    """Where arguments are documented: bases of the project, the class, the target itself."""
    found, owner = walk(target)
    if owner is not None:
        yield from _ancestry(owner)
    yield from _ancestry(found)


def _ancestry(found: Definition) -> Iterator[Documented]:
    if isinstance(found.node, ast.ClassDef):
        for base in found.node.bases:
            above = look_up_expression(found.module, base)
            if above is not None and above.module.startswith("polyqwen."):
                yield from _ancestry(above)
    if isinstance(found.node, Documented):
        yield found.node


def _arguments(docstring: str) -> dict[str, str]:
    """The entries of a docstring's Args, each on one line."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", docstring, re.MULTILINE)
    entries = re.split(r"^    (?=\w)", section[1], flags=re.MULTILINE) if section else []
    pairs = (entry.partition(":") for entry in entries if entry.strip())
    return {name.strip(): " ".join(text.split()) for name, _, text in pairs}


def _defaults(node: ast.AST | None) -> dict[str, str]:
    """Defaults of a function, or of a class's own constructor, as written."""
    if isinstance(node, ast.ClassDef):
        own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        node = own[0] if own else None
    if not isinstance(node, ast.FunctionDef):
        return {}
    a = node.args
    ordered = [*a.posonlyargs, *a.args]
    given = dict(zip(ordered[len(ordered) - len(a.defaults) :], a.defaults, strict=True))
    given |= {p: d for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True) if d is not None}
    words = {"None": "null", "True": "true", "False": "false"}
    return {p.arg: words.get(ast.unparse(d), ast.unparse(d)) for p, d in given.items()}


if __name__ == "__main__":
    print(page(), end="")
