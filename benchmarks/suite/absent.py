"""Stand-ins for packages that a machine lacks and a benchmark only imports, never uses."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls


class Nothing(metaclass=_Anything):
    """Stands for every name of an absent package; whatever is asked of it, it stays itself."""


class _StandIns(MetaPathFinder, Loader):
    """Finds empty modules for packages and all that lies in them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self.packages:
            return None
        return spec_from_loader(name, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = lambda _: Nothing  # type: ignore[method-assign]


def stand_in(*packages: str) -> list[str]:
    """Puts empty modules in the place of packages that cannot be imported; returns their names."""
    absent = []
    for name in packages:
        try:
            import_module(name)
        except ImportError:
            sys.modules.pop(name, None)
            absent.append(name)
    sys.meta_path.append(_StandIns(absent))
    return absent
