"""Stand-ins for packages that a machine lacks and a benchmark only imports, never uses."""

import sys
from importlib import import_module
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


def stand_in(*packages: str) -> list[str]:
    """Puts empty modules in the place of packages that cannot be imported; returns their names."""
    absent = []
    for name in packages:
        try:
            import_module(name)
        except ImportError:
            module = ModuleType(name)
            module.__path__ = []  # so that its submodules can be named too
            module.__getattr__ = lambda _: Nothing  # type: ignore[method-assign]
            sys.modules[name] = module
            absent.append(name)
    return absent
