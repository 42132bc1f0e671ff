"""A device that is not there: ``python -m tests.training.gpu_rehearsal`` takes steps on it.

Tensors that say they lie on a device and hold no numbers (`FakeTensorMode`) go through a whole
step. An operation on tensors of two devices fails, and so does whatever would bring a number back
to the host, which on a GPU would wait for all that is under way. Copies between host and device
wait as well, unless they are told not to; they are found by their place in the code.

A process of its own, since torch counts the kinds of devices at its first backward pass; each step
is taken in a fork of it.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.fabric.utilities import move_data_to_device
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from polyqwen.build.run import Parts, build
from polyqwen.config.resolvers import register
from polyqwen.data.batch import Batch
from polyqwen.models import packing
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.task_weigher import TaskWeigher
from tests.conftest import ROOT
from tests.training.test_module import batch_of

KIND = "rehearsed"
# not all below ROOT: `make install` puts the environment, and so torch's files, there
SOURCES = (ROOT / "polyqwen", ROOT / "tests")


class Backend(_DummyBackendModule):
    """What torch asks a kind of device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class Copies(TorchDispatchMode):
    """Lines of the project for whose copies between devices the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, out) if isinstance(value, torch.Tensor)]
        waits = "copy" in func.name() and not (kwargs or {}).get("non_blocking")
        if waits and len({value.device.type for value in tensors}) > 1:
            lines = [frame for frame in traceback.extract_stack() if of_the_project(frame.filename)]
            self.found.append(f"{lines[-2].filename}:{lines[-2].lineno}")
        return out


def of_the_project(filename: str) -> bool:
    """Whether a line of a traceback stands in the package or its tests."""
    return any(Path(filename).is_relative_to(folder) for folder in SOURCES)


@contextmanager
def rehearsal(module: nn.Module) -> Iterator[tuple[FakeTensorMode, Copies]]:
    """The module's weights and buffers are on the device, and new tensors hold nothing."""
    mode = FakeTensorMode()
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                own = moved(value.data, mode)
                part._parameters[name] = nn.Parameter(own, value.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = moved(buffer, mode)
        if hasattr(part, "_device"):  # Lightning's and torchmetrics' own note of it
            part._device = torch.device(KIND, 0)
    with mode, Copies() as copies:
        yield mode, copies


def faked(value: Any, mode: FakeTensorMode) -> Any:
    return mode.from_tensor(value) if isinstance(value, torch.Tensor) else value


def moved(value: Any, mode: FakeTensorMode) -> Any:
    fake = faked(value, mode)
    with mode:
        return fake if fake is None else fake.to(torch.device(KIND, 0))


def waits_of(parts: Parts, batch: Batch) -> list[str]:
    """Lines that copy between the devices in a step's forward and backward pass."""
    module = parts.model
    for part in (module.encoder, module.pooling, module.projection):
        part.to(torch.bfloat16)  # which packed attention on a GPU asks for
    with rehearsal(module) as (mode, copies):
        batch = tree.tree_map(partial(faked, mode=mode), batch)
        module.gradient_mask.accumulates = True  # as in a step of several micro-batches
        there = move_data_to_device(batch, torch.device(KIND, 0))  # Lightning's, as in a run
        module.training_step(there, 0).backward()
    trained = [p for p in module.parameters() if p.grad is not None]
    assert trained and all(p.grad.device.type == KIND for p in trained)
    return copies.found


def step(overrides: Sequence[str], fault: str | None) -> list[str]:
    """One step, but for the update of the weights: its algebra is on the CPU.

    Args:
        overrides: of the configuration.
        fault: "copy" brings the loss back, "mixed" adds a tensor of the host; None does neither.
    """
    packing.has_kernel = lambda device: device.type == KIND
    TaskWeigher.update = lambda self, step: None  # type: ignore[method-assign]
    plain = EmbeddingModule.training_step

    def faulty(self: Any, batch: Batch, batch_idx: int) -> torch.Tensor:
        total = plain(self, batch, batch_idx)
        if fault == "copy":
            total.detach().cpu()
        return total + torch.zeros(3).sum(dim=0, keepdim=True) if fault == "mixed" else total

    EmbeddingModule.training_step = faulty  # type: ignore[method-assign]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        parts = build(compose("train", overrides=list(overrides)))
    return waits_of(parts, batch_of(parts, list(parts.data.tasks)))


def answer(line: str) -> dict[str, Any]:
    """What became of one step: the lines that wait, or an error."""
    try:
        return {"waits": step(**json.loads(line))}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def main() -> None:
    """Answers each line of JSON with one."""
    register()
    _setup_privateuseone_for_python_backend(KIND, Backend())
    for line in sys.stdin:
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            print(json.dumps(answer(line)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
