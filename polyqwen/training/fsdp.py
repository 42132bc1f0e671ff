"""Sharded weights (FSDP2): every process keeps a part; gathered for steps and evaluations."""

from typing import Any

import lightning.pytorch as pl
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Lets every process keep a part of each weight, its gradient and its optimizer state (FSDP2).

    For a training step the weights are gathered once, and once its gradients are reduced. Gathering
    layer by layer would hold less at a time, but ranks cut their batches into different numbers of
    chunks (see `Collator`) and would wait for each other's collectives for ever.

    FSDP2 takes no scalars: they become vectors of one, also in checkpoints, and load into scalars.

    Args:
        module: with a ``training_step``; changed in place.
        mesh: the processes, one dimension.
    """
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if parameter.ndim == 0:
                vector = nn.Parameter(parameter.detach()[None], parameter.requires_grad)
                setattr(part, name, vector)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(module, "training_step")


class WholeInEvaluation(pl.Callback):
    """Gathers sharded weights for a validation or test and frees them after it.

    Ranks may have different numbers of evaluation batches, so that nothing can be gathered batch by
    batch: the rank with more of them would wait for ever.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gathers."""
        _sharded(pl_module).unshard()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Frees."""
        _sharded(pl_module).reshard()

    on_test_start, on_test_end = on_validation_start, on_validation_end


def _sharded(module: Any) -> FSDPModule:
    assert isinstance(module, FSDPModule)
    return module
