"""Any weighting of the TorchJD library that works on a Gram matrix."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientArguments, GradientWeighting
from polyqwen.weighting.common import step_seed


class TorchJD(GradientWeighting):
    """Weights from a class of ``torchjd.aggregation`` (Quinton and Rey, 2024, arXiv:2406.16232).

    For comparisons: the library is imported when this is built, and is no dependency otherwise. Its
    random draws are seeded by seed and step, so that they are the same on all ranks. Classes with
    state are refused, because the library's state does not survive a checkpoint.

    Args:
        name: of the class, e.g. "MGDAWeighting".
        arguments: its keyword arguments.
        seed: of its random draws, >= 0.
        shared: arguments of `GradientWeighting`.

    Raises:
        ValueError: no library, no such class, one that has state or that does not take a Gram
            matrix, or arguments that it does not take.
    """

    def __init__(
        self,
        *,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        seed: int = 0,
        **shared: Unpack[GradientArguments],
    ) -> None:
        super().__init__(**shared)
        self.check(seed >= 0, "seed", seed, ">= 0")
        self.seed = seed
        self._solver = _build(name, dict(arguments or {}))
        with torch.random.fork_rng(devices=[]):
            _try(self._solver, len(self.tasks), name, arguments)

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,), on the scale of the library."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(self.seed, step))
            return self._solver(gram).to(gram)


def _build(name: str, arguments: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    try:
        library = importlib.import_module("torchjd.aggregation")
    except ImportError as error:
        raise ValueError(
            "weighting=torchjd needs the package torchjd: pip install torchjd==0.18.0, or choose "
            f"another weighting ({error})"
        ) from error
    names = [n for n in dir(library) if n.endswith("Weighting") and n != "Weighting"]
    if name not in names:
        known = {n.lower(): n for n in names}
        found = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.4)
        near = [known[n] for n in found] or sorted(names)
        raise ValueError(
            f"weighting.name is {name!r}, no weighting of torchjd.aggregation; near: "
            f"{', '.join(near)}"
        )
    kind = getattr(library, name)
    if hasattr(kind, "reset"):
        raise ValueError(
            f"weighting.name {name} keeps a state that TorchJD cannot restore from a checkpoint; "
            "use a weighting without state, or one of conf/weighting"
        )
    try:
        return kind(**arguments)
    except ImportError as error:
        raise ValueError(f"weighting.name {name}: {_line(error)}; or use our own") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"weighting.arguments {arguments} do not suit {name}{inspect.signature(kind)}: "
            f"{_line(error)}"
        ) from error


def _try(solver: Callable[[Tensor], Tensor], tasks: int, name: str, arguments: object) -> None:
    try:
        solver(torch.eye(tasks, dtype=torch.float64))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"weighting.name {name} with {arguments} does not work on a {tasks} x {tasks} Gram "
            f"matrix: {_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
