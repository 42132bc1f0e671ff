"""Whether a configured value fits an annotation, as far as the annotation can be read."""

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

from polyqwen.config.errors import ConfigError, suggest
from polyqwen.config.sources import READ, look_up_expression

SCALARS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bytes": (bytes,),
}
LISTS = ("list", "List", "Sequence", "Iterable", "Collection", "set", "Set", "frozenset")
MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")
WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "none": "null",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "any": "anything",
    "object": "a node with _target_",
}


class Annotation(NamedTuple):
    """One alternative of an annotation.

    Attributes:
        name: a key of `WORDS`, or ``literal``.
        inner: kinds of a list's items, a tuple's places, a mapping's keys and values.
        value: of a literal.
    """

    name: str
    inner: tuple["Annotations", ...] = ()
    value: Any = None


Annotations = tuple[Annotation, ...]
ANY: Annotations = (Annotation("any"),)


class Built(NamedTuple):
    """Stands for the object that a node with ``_target_`` becomes."""

    target: str


def read_annotation(node: ast.expr | None, module: str, depth: int = 0) -> Annotations:
    """The alternatives of an annotation; `ANY` for what is not understood.

    Args:
        node: the annotation.
        module: where it is written.
        depth: of aliases followed so far.
    """
    if node is None or depth > 10:
        return ANY
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return read_annotation(ast.parse(node.value, mode="eval").body, module, depth + 1)
        return (Annotation("none"),) if node.value is None else ANY
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left, right = (read_annotation(n, module, depth) for n in (node.left, node.right))
        return left + right
    if isinstance(node, ast.Subscript):
        return _subscripted(node, module, depth)
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(node, module, depth)
    return ANY


def _subscripted(node: ast.Subscript, module: str, depth: int) -> Annotations:
    name = _last(node.value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        values = [item.value for item in items if isinstance(item, ast.Constant)]
        return tuple(Annotation("literal", value=value) for value in values)
    if name == "Callable":
        return (Annotation("object"),)
    if name == "Annotated":
        return read_annotation(items[0], module, depth)
    inner = [read_annotation(item, module, depth) for item in items]
    if name == "Optional":
        return (*inner[0], Annotation("none"))
    if name == "Union":
        return tuple(kind for kinds in inner for kind in kinds)
    if name in LISTS:
        return (Annotation("list", (inner[0],)),)
    if name in MAPPINGS and len(inner) == 2:
        return (Annotation("dict", tuple(inner)),)
    if name in ("tuple", "Tuple"):
        if isinstance(items[-1], ast.Constant) and items[-1].value is ...:
            return (Annotation("list", (inner[0],)),)
        return (Annotation("tuple", tuple(inner)),)
    return ANY


def _named(node: ast.Name | ast.Attribute, module: str, depth: int) -> Annotations:
    name = _last(node)
    found = look_up_expression(module, node)
    if found is not None and isinstance(found.node, ast.expr):
        return read_annotation(found.node, found.module, depth + 1)  # an alias
    if found is not None and isinstance(found.node, ast.ClassDef):
        return (Annotation("object", value=found.path),)
    if found is not None and found.module.partition(".")[0] in READ:
        return ANY
    if found is not None and found.path in ("pathlib.Path", "os.PathLike"):
        return (Annotation("str"),)
    if name == "Callable":
        return (Annotation("object"),)
    if found is None and name in SCALARS:
        return (Annotation(name),)
    if name in LISTS or name in ("tuple", "Tuple"):
        return (Annotation("list", (ANY,)),)
    if name in MAPPINGS:
        return (Annotation("dict", (ANY, ANY)),)
    return ANY


def _last(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def check_value(value: Any, kinds: Annotations, where: str) -> None:
    """Raises `ConfigError` for a value that none of the kinds takes.

    A list or mapping of the right kind is looked into, so that its wrong item is named.
    """
    for error in _mismatches(value, kinds, where):
        raise error


def _mismatches(value: Any, kinds: Annotations, where: str) -> Iterator[ConfigError]:
    found = [list(_inside(value, kind, where)) for kind in kinds if _fits(value, kind)]
    if found:
        yield from [] if [] in found else found[0]
        return
    plain = value is None or isinstance(value, bool)
    shown = {None: "null", True: "true", False: "false"}[value] if plain else repr(value)
    literals = [str(kind.value) for kind in kinds if kind.name == "literal"]
    if literals and isinstance(value, str):
        yield ConfigError(where, f"{shown} is not an option", suggest(value, literals))
        return
    words = [_word(kind) for kind in kinds if kind.name in WORDS] + literals
    quotes = "str" in [kind.name for kind in kinds] and isinstance(value, int | float)
    way_out = f"put it in quotes: \"'{value}'\"" if quotes and not plain else ""
    what = f"must be {' or '.join(dict.fromkeys(words))}, got {shown}"
    yield ConfigError(where, what, way_out)


def _word(kind: Annotation) -> str:
    return f"a list of {len(kind.inner)}" if kind.name == "tuple" else WORDS[kind.name]


def _fits(value: Any, kind: Annotation) -> bool:
    """Whether the value is of the kind, not looking inside."""
    if kind.name == "any":
        return True
    if kind.name == "literal":
        return type(value) is type(kind.value) and value == kind.value
    if kind.name == "none":
        return value is None
    if isinstance(value, Built):
        return kind.name not in SCALARS
    if kind.name in SCALARS:
        return isinstance(value, SCALARS[kind.name]) and (
            isinstance(value, bool) is (kind.name == "bool")
        )
    if kind.name == "list":
        return isinstance(value, list | tuple)
    if kind.name == "tuple":
        return isinstance(value, list | tuple) and len(value) == len(kind.inner)
    return kind.name == "dict" and isinstance(value, dict)


def _inside(value: Any, kind: Annotation, where: str) -> Iterator[ConfigError]:
    if isinstance(value, Built):
        return
    if kind.name == "list":
        for i, item in enumerate(value):
            yield from _mismatches(item, kind.inner[0], f"{where}[{i}]")
    elif kind.name == "tuple":
        for i, (item, kinds) in enumerate(zip(value, kind.inner, strict=True)):
            yield from _mismatches(item, kinds, f"{where}[{i}]")
    elif kind.name == "dict":
        for key, item in value.items():
            yield from _mismatches(item, kind.inner[1], f"{where}.{key}")
