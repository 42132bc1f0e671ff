"""Names of a package, looked up in its source files: nothing is imported, nothing runs."""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

READ = ("polyqwen", "lightning")  # packages whose files are read; others are known by name only


class Definition(NamedTuple):
    """What a name stands for.

    Attributes:
        module: dotted name of the module that defines it.
        name: its name there; empty for the module itself.
        node: class, function, assigned expression, or the whole module; None outside `READ`.
    """

    module: str
    name: str
    node: ast.AST | None

    @property
    def path(self) -> str:
        """The dotted path."""
        return f"{self.module}.{self.name}" if self.name else self.module


@cache
def file_of(module: str) -> Path | None:
    """Source file of a module; importing only what `find_spec` of a top-level name needs."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if not rest:
        return path if path.suffix == ".py" else None
    path = path.parent.joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if candidate.is_file():
            return candidate
    return None


@cache
def names_of(module: str) -> dict[str, ast.AST]:
    """Top-level names of a module with the statements that bind them, the last one winning."""
    path = file_of(module)
    if path is None:
        return {}
    names: dict[str, ast.AST] = {}
    for node in _statements(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and node.value is not None:
                    names[target.id] = node.value
    return names


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those under ``if TYPE_CHECKING`` and ``try``."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.orelse, *node.body])
        else:
            yield node


def look_up(module: str, name: str) -> Definition | None:
    """The definition of a name in a module, through any number of ``from … import``."""
    for _ in range(20):
        if module.partition(".")[0] not in READ:
            return Definition(module, name, None)
        node = names_of(module).get(name)
        if node is None:
            whole = f"{module}.{name}"
            return Definition(whole, "", ast.Module([], [])) if file_of(whole) else None
        if isinstance(node, ast.ImportFrom):
            alias = next(a for a in node.names if (a.asname or a.name) == name)
            module, name = _absolute(module, node), alias.name
        elif isinstance(node, ast.Import):
            alias = next(a for a in node.names if (a.asname or a.name.partition(".")[0]) == name)
            return Definition(alias.name if alias.asname else name, "", ast.Module([], []))
        else:
            return Definition(module, name, node)
    return None


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that ``from … import`` names, relative ones too."""
    if not node.level:
        return node.module or ""
    path = file_of(module)
    up = node.level - (path is not None and path.name == "__init__.py")
    parts = module.split(".")
    return ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])


def look_up_expression(module: str, node: ast.expr) -> Definition | None:
    """The definition behind ``name`` or ``name.name`` as written in a module."""
    if isinstance(node, ast.Name):
        return look_up(module, node.id)
    if isinstance(node, ast.Attribute):
        left = look_up_expression(module, node.value)
        if left is not None and not left.name:
            return look_up(left.module, node.attr)
        if left is not None and left.node is None:
            return Definition(left.path, node.attr, None)
    return None
