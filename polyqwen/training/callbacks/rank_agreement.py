"""Checks at the start that all ranks run the same configuration."""

import lightning.pytorch as pl

from polyqwen.training.distributed import gather_objects


class RankAgreement(pl.Callback):
    """Compares the resolved configuration of all ranks, before anything is trained.

    Args:
        settings: the resolved configuration as lines of text, ``key = value``.
    """

    def __init__(self, settings: list[str]) -> None:
        self.settings = settings

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises ValueError on all ranks alike if one differs from rank 0, and names the lines."""
        everyone = gather_objects(self.settings)
        other = next((rank for rank, own in enumerate(everyone) if own != everyone[0]), None)
        if other is None:
            return
        differing = set(everyone[0]) ^ set(everyone[other])
        lines = sorted(differing, key=lambda line: line.split(" = ")[0])
        raise ValueError(
            f"rank {other} runs another configuration than rank 0: {'; '.join(lines[:6])}; start "
            "all ranks with the same command"
        )
