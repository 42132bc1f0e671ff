"""Public names of a package that are imported when first used (PEP 562): torch takes seconds."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def lazy_names(
    package: str,
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a package, from its ``if TYPE_CHECKING:``.

    The imports under it are what type checkers and editors see; here the same lines say from where
    each name comes, so that no second list has to agree with them.

    Args:
        package: ``__name__`` of the package.
    """
    module = sys.modules[package]
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_bytes())
    sources = {
        alias.asname or alias.name: (statement.module or "", alias.name)
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }

    def get(name: str) -> object:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        source, original = sources[name]
        value = getattr(import_module(source), original)
        setattr(module, name, value)  # found without asking here from now on
        return value

    def names() -> list[str]:
        return sorted({*vars(module), *sources})

    return [*sources], get, names
