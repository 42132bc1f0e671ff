"""How many processes a run has, and who starts them."""

import os
from typing import NamedTuple

from omegaconf import DictConfig, ListConfig


def launched_outside() -> bool:
    """Whether torchrun, SLURM or another launcher has started one process per device already."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


class Devices(NamedTuple):
    """What a run asks for, and what there is.

    Attributes:
        processes: on a machine, >= 1.
        gpus: of this machine that the run may use.
        on_gpu: whether the processes are to run on GPUs.
    """

    processes: int
    gpus: int
    on_gpu: bool

    @property
    def missing(self) -> bool:
        """Whether this machine has too few GPUs."""
        return self.on_gpu and self.processes > self.gpus


def asked_devices(cfg: DictConfig) -> Devices:
    """What ``trainer.devices`` and ``trainer.accelerator`` ask for, whether it is there or not.

    Raises:
        ValueError: fewer than one.
    """
    import torch

    devices, accelerator = cfg.trainer.devices, cfg.trainer.accelerator
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    if isinstance(devices, ListConfig):
        count = len(devices)
    elif devices in ("auto", -1, "-1"):
        count = max(gpus, 1)
    else:
        count = int(devices)
    if count < 1:
        raise ValueError(f"trainer.devices={devices}: give a number >= 1, or auto")
    return Devices(count, gpus, accelerator in ("gpu", "cuda") or gpus > 0)


def device_count(cfg: DictConfig) -> int:
    """Processes that ``trainer.devices`` asks for on this machine.

    Raises:
        ValueError: more than there are, or a number of nodes that needs a launcher.
    """
    asked = asked_devices(cfg)
    if asked.missing:
        fewer = f"trainer.devices=1 (at most {asked.gpus}), or " if asked.gpus else ""
        single = "" if asked.gpus else ", with trainer.devices=1 for one process"
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices}, but this machine has {asked.gpus} GPUs; give "
            f"{fewer}trainer.accelerator=cpu{single}"
        )
    if cfg.trainer.num_nodes > 1 and not launched_outside():
        raise ValueError(
            f"trainer.num_nodes={cfg.trainer.num_nodes} needs a launcher on every node: torchrun "
            "--nnodes … train.py …, or srun"
        )
    return asked.processes


def precision_of(cfg: DictConfig) -> str:
    """``trainer.precision``; "auto" is bf16-mixed on a GPU of this machine, else 32-true."""
    if cfg.trainer.precision != "auto":
        return str(cfg.trainer.precision)
    asked = asked_devices(cfg)
    return "bf16-mixed" if asked.on_gpu and asked.gpus else "32-true"
