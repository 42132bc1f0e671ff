"""How many processes a run has, and who starts them."""

import os

from omegaconf import DictConfig, ListConfig


def launched_outside() -> bool:
    """Whether torchrun, SLURM or another launcher has started one process per device already."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def device_count(cfg: DictConfig) -> int:
    """Processes that ``trainer.devices`` asks for on this machine.

    Raises:
        ValueError: more than there are, or a number of nodes that needs a launcher.
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
    if (accelerator in ("gpu", "cuda") or gpus) and count > gpus:
        way_out = f"ask for at most {gpus}, or add " if gpus else "give "
        raise ValueError(
            f"trainer.devices={devices}, but this machine has {gpus} GPUs; {way_out}"
            "trainer.accelerator=cpu"
        )
    if cfg.trainer.num_nodes > 1 and not launched_outside():
        raise ValueError(
            f"trainer.num_nodes={cfg.trainer.num_nodes} needs a launcher on every node: torchrun "
            "--nnodes … train.py …, or srun"
        )
    return count
