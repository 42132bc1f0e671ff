"""Optimizer groups, the learning-rate schedule, and the norm that gradients are clipped by."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from polyqwen.training.schedules import warmup_cosine


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices only, not to norms, biases, queries and scalars."""
    return parameter.ndim >= 2 and not name.endswith("queries")


def parameter_groups(
    parts: Iterable[tuple[str, nn.Module, float, float]],
) -> list[dict[str, Any]]:
    """AdamW groups of trainable parameters.

    Args:
        parts: (name, module, learning rate, weight decay); each is split into decayed and not.
    """
    groups = []
    for part, module, rate, decay in parts:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        for suffix, wanted in (("", True), ("_no_decay", False)):
            chosen = [p for n, p in named if decays(n, p) is wanted]
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "lr": rate,
                        "weight_decay": decay if wanted else 0.0,
                        "name": part + suffix,
                    }
                )
    return groups


def adamw(
    backbone: nn.Module,
    head: nn.Module,
    *,
    total_steps: int,
    backbone_lr: float,
    head_lr: float,
    backbone_weight_decay: float,
    head_weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    warmup_fraction: float = 0.03,
    final_fraction: float = 0.0,
) -> dict[str, Any]:
    """AdamW with one rate for the backbone and one for pooling and projection, warmup and cosine.

    Args:
        backbone: the encoder.
        head: pooling and projection.
        total_steps: optimizer steps of the run, > 0 (given by the run, never asked of the trainer:
            reading its estimate makes a resumed loader restart).
        backbone_lr: peak rate, > 0.
        head_lr: peak rate, > 0.
        backbone_weight_decay: >= 0.
        head_weight_decay: >= 0.
        betas: moments of AdamW.
        eps: of AdamW.
        warmup_fraction: part of the run in which the rate rises, in [0, 1).
        final_fraction: rate at the end as a part of the peak, in [0, 1].

    Returns:
        What `LightningModule.configure_optimizers` returns.
    """
    for name, value in (("backbone_lr", backbone_lr), ("head_lr", head_lr)):
        if not value > 0:
            raise ValueError(f"optimizer.{name} must be positive, got {value}")
    if not 0.0 <= warmup_fraction < 1.0:
        raise ValueError(f"optimizer.warmup_fraction must lie in [0, 1), got {warmup_fraction}")
    groups = parameter_groups(
        [
            ("backbone", backbone, backbone_lr, backbone_weight_decay),
            ("head", head, head_lr, head_weight_decay),
        ]
    )
    optimizer = AdamW(groups, betas=betas, eps=eps, fused=True)
    rate = partial(
        warmup_cosine,
        warmup_steps=round(warmup_fraction * total_steps),
        total_steps=total_steps,
        final=final_fraction,
    )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, rate), "interval": "step"},
    }


@contextmanager
def scaled_learning_rates(
    optimizer: Optimizer | LightningOptimizer, factor: float
) -> Iterator[None]:
    """Multiplies every group's learning rate inside the block; the schedule's own come back.

    So the factor is no part of the optimizer's state, and schedulers never see it.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


class GradientNorm:
    """One measurement per step for the guard against NaN, for clipping and for the log.

    Attributes:
        value: of the last optimizer step, before clipping; NaN without any gradient.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self._norm: Tensor | None = None  # the same on the device, until clipping has used it

    def measure(self, parameters: Iterable[Parameter], dropped: Tensor) -> int:
        """Sets `value`, the norm of all gradients, and reads ``dropped``.

        Both together are the step's one wait for the device: the host has to know them to skip a
        step.

        Args:
            parameters: whose gradients are measured.
            dropped: () number of micro-batches whose gradients are zero, on their device.

        Returns:
            That number.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        self._norm = norm = get_total_norm(gradients) if gradients else None
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if whole is None:
            self.value = math.nan
            return int(dropped)
        self.value, count = torch.stack([whole.float(), dropped.float()]).tolist()
        return int(count)

    def clip(self, parameters: Iterable[Parameter], limit: float | None) -> bool:
        """Clips to ``limit``, if there is one; False where nothing was measured in this step."""
        norm, self._norm = self._norm, None
        if norm is None:
            return False
        # below the limit the factor is 1: the host knows, so nothing has to be multiplied
        if limit and self.value + 1e-6 > limit:
            clip_grads_with_norm_(parameters, limit, norm)
        return True
