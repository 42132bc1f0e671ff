"""Folders of runs with drawn weights: what a run leaves, without training."""

from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import OmegaConf

from polyqwen.build.run import build
from tests.conftest import Configure

MakeRun = Callable[..., Path]


def make_run(configure: Configure, folder: Path, *overrides: str) -> Path:
    """A run's folder: its configuration and a checkpoint in which no weight is as it was drawn."""
    cfg = configure(f"run_dir={folder}", *overrides)
    model = build(cfg).model
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    saved = {"state_dict": model.state_dict(), "prefixes": model.prefixes}
    torch.save(saved, folder / "checkpoints" / "last.ckpt")
    return folder
