"""What a device must hold for the weights, and for the largest micro-batch of the run."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from polyqwen.build.plan.activations import HALF, Kept
from polyqwen.build.plan.model import ModelPlan
from polyqwen.build.plan.rows import SplitRows
from polyqwen.build.plan.types import MemoryPlanned
from polyqwen.build.processes import Devices
from polyqwen.data.rows.task import Task
from polyqwen.models.memory.plan import SAFETY, STATE, MemoryPlan, free_memory

SIDES = 2  # query and document


class MicroBatchTokens(NamedTuple):
    """Tokens of a micro-batch on one device, those of pictures counted in ``all`` too."""

    all: float
    visual: float
    capped: bool


def plan_memory(
    cfg: DictConfig,
    model: ModelPlan,
    kept: Kept | None,
    tokens: MicroBatchTokens,
    devices: Devices,
    world: int,
    precision: str,
) -> MemoryPlanned:
    """Bytes on one device, estimated.

    Args:
        cfg: the configuration.
        model: counted parameters.
        kept: bytes by token; None if they are not known.
        tokens: of the largest micro-batch.
        devices: asked for, and there.
        world: processes of the run on all machines.
        precision: of the run, as Lightning names it.
    """
    half = precision.startswith(HALF)
    size = 0.5 if half and precision.endswith("true") else 1.0  # weights themselves are halved
    parts = 1.0 / world if cfg.trainer.strategy == "fsdp" else 1.0
    weights, trained = size * model.weights, size * model.trained
    available = _available(devices)
    fixed = MemoryPlanned(
        weights=parts * weights,
        gradients=parts * trained,
        optimizer=parts * (STATE - 1) * trained,
        gathered=(1.0 - parts) * (weights + trained),
        casts=2.0 * model.copied if half and size == 1.0 else 0.0,
        activations=0.0,
        mode=cfg.large_batch.mode,
        tokens=tokens.all,
        capped=tokens.capped,
        available=available,
    )
    if kept is None or kept.visual is None:
        return fixed._replace(activations=None)
    per_token = kept.token + kept.visual * tokens.visual / max(tokens.all, 1.0)
    return _with_activations(cfg, fixed, per_token, model.inputs)


def _with_activations(
    cfg: DictConfig, fixed: MemoryPlanned, per_token: float, inputs: float | None
) -> MemoryPlanned:
    """As `LargeBatch` would choose and cut the micro-batch."""
    sizes = _chunks(fixed.tokens or 0.0, cfg.data.chunk_tokens)
    budget, mode = float("inf"), fixed.mode
    if cfg.large_batch.memory_gb is not None:
        budget = cfg.large_batch.memory_gb * 2**30
    elif fixed.available is not None:
        assert fixed.total is not None
        budget = SAFETY * max(fixed.available - fixed.total, 0.0)
    plan = MemoryPlan(per_token, inputs, budget)
    mode = plan.choose(sizes) if mode == "auto" else mode
    return fixed._replace(activations=plan.needed(mode, sizes), mode=mode)


def _chunks(tokens: float, most: int) -> list[int]:
    """Encoder passes of so many tokens, as the collator cuts them."""
    whole, rest = divmod(max(round(tokens), 1), most)
    return [most] * whole + [rest] * (rest > 0)


def _available(devices: Devices) -> float | None:
    """Free bytes for each process; None for GPUs that are not on this machine."""
    if devices.on_gpu:
        return free_memory(torch.device("cuda", 0)) if devices.gpus else None
    return free_memory(torch.device("cpu")) / devices.processes


def tokens_of_micro_batch(
    cfg: DictConfig,
    together: Mapping[str, NDArray[np.int64]],
    tasks: Mapping[str, Task],
    rows: Mapping[str, SplitRows],
    world: int,
) -> MicroBatchTokens:
    """Of one device's part of the gathered micro-batch that has the most, without padding.

    A task whose texts were not looked at has rows as long as the model takes.

    Args:
        cfg: the configuration.
        together: task -> its rows in gathered micro-batches, (M,).
        tasks: of the run.
        rows: of each task.
        world: processes that share a micro-batch.
    """
    sizes = {name: _tokens_of_row(cfg, tasks[name], rows[name]) for name in together}
    every = sum(count * (sizes[name][0] + sizes[name][1]) for name, count in together.items())
    most = int(np.argmax(every))
    visual = sum(count[most] * sizes[name][1] for name, count in together.items())
    capped = any(count[most] and not sizes[name][2] for name, count in together.items())
    return MicroBatchTokens(float(np.max(every)) / world, float(visual) / world, capped)


def _tokens_of_row(cfg: DictConfig, task: Task, rows: SplitRows) -> tuple[float, float, bool]:
    if rows.text_tokens is not None and rows.visual_tokens is not None:
        return rows.text_tokens, rows.visual_tokens, True
    most = task.visual_tokens
    if cfg.data.max_visual_tokens is not None:
        most = min(most, cfg.data.max_visual_tokens)
    sides = 1 if "labels" in task.fields else SIDES
    text = float(sides * cfg.model.tokens.max_tokens)
    return text, float(most) if task.pictured else 0.0, False
