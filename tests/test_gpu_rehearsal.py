"""A training step on a GPU, rehearsed without one: all in its place, and nobody waits.

Tensors that say they lie on a device and hold no numbers (`FakeTensorMode`) go through a whole
step. An operation on tensors of two devices fails, and so does whatever would bring a number back
to the host, which on a GPU would wait for all that is under way. Copies between host and device
wait as well, unless they are told not to; they are found by their place in the code.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from polyqwen.cli.build import Parts, build
from polyqwen.data.batch import Batch
from polyqwen.models import packing
from polyqwen.module import EmbeddingModule
from tests.conftest import ROOT, Configure
from tests.hostile import contained
from tests.test_module import batch_of

KIND = "rehearsed"
TRUSTED = ("exp_gradient", "gate", "lossrag", "nnls_match")
# these look at a number of their own before each step
WAITING = ("calibrated", "stw_learned")
WEIGHTINGS = sorted(p.stem for p in (ROOT / "conf" / "weighting").glob("*.yaml"))


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
            lines = [f for f in traceback.extract_stack() if f.filename.startswith(str(ROOT))]
            self.found.append(f"{lines[-2].filename}:{lines[-2].lineno}")
        return out


@contextmanager
def rehearsal(module: nn.Module) -> Iterator[tuple[FakeTensorMode, Copies]]:
    """The module's weights and buffers are on the device, and new tensors hold nothing."""
    _setup_privateuseone_for_python_backend(KIND, Backend())
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
        there = move_data_to_device(batch, torch.device(KIND, 0))  # Lightning's, as in a run
        module.training_step(there, 0).backward()
    trained = [p for p in module.parameters() if p.grad is not None]
    assert trained and all(p.grad.device.type == KIND for p in trained)
    return copies.found


@pytest.fixture
def rehearse(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A step with overrides, but for the update of the weights: its algebra is on the CPU."""
    monkeypatch.setattr(packing, "has_kernel", lambda device: device.type == KIND)
    monkeypatch.setattr(EmbeddingModule, "update_weighting", lambda self: None)

    def run(*overrides: str) -> Any:
        parts = build(configure("model.encoder.attention=packed", *overrides))
        batch = batch_of(parts, list(parts.data.tasks))
        return contained(lambda: waits_of(parts, batch), seconds=100, megabytes=2000)

    return run


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("mode", ["off", "checkpoint", "cached"])
def test_a_step_waits_for_nothing(rehearse: Any, mode: str, frozen: bool) -> None:
    assert rehearse(f"large_batch={mode}", f"model.encoder.freeze_vision={frozen}") == []


@pytest.mark.parametrize("name", [name for name in WEIGHTINGS if name not in WAITING])
def test_weightings_gather_on_the_device(rehearse: Any, name: str) -> None:
    trusted = ["data.trusted_rows=4"] if name in TRUSTED else []
    assert rehearse(f"weighting={name}", *trusted) == []


@pytest.mark.parametrize(
    "options",
    [
        ["library=embedding", "weighting=equal"],
        ["model/tuning=lora"],
        ["widths=matryoshka"],
        ["model=tiny_text", "experiment=text_multitask"],
    ],
    ids=" ".join,
)
def test_parts_of_the_model_and_all_losses(rehearse: Any, options: list[str]) -> None:
    assert rehearse(*options) == []


def test_a_wait_is_found(rehearse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = EmbeddingModule.training_step

    def looked_at(self: Any, batch: Batch, batch_idx: int) -> torch.Tensor:
        total = plain(self, batch, batch_idx)
        total.detach().cpu()
        return total

    monkeypatch.setattr(EmbeddingModule, "training_step", looked_at)
    (line,) = rehearse()
    assert __file__ in line

    def counted(self: Any, batch: Batch, batch_idx: int) -> torch.Tensor:
        return plain(self, batch, batch_idx) + torch.zeros(3).sum(dim=0, keepdim=True)

    monkeypatch.setattr(EmbeddingModule, "training_step", counted)
    with pytest.raises(AssertionError, match="ended with 1"):  # tensors of two devices
        rehearse()
