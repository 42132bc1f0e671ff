"""Weights & Biases without a network: a run's log on the disk, to be sent by hand."""

from pathlib import Path

from lightning.pytorch.loggers import WandbLogger


class OfflineWandb(WandbLogger):
    """Writes what wandb shows into the run's folder; ``wandb sync FOLDER/wandb/…`` sends it.

    A configuration may come from anyone, so none of them sends anything: that is a command of the
    user's own.

    Args:
        save_dir: the run's folder.
        project: of the run on wandb.
        name: of the run on wandb; None takes the folder's.

    Raises:
        ValueError: wandb is not installed.
    """

    def __init__(
        self, save_dir: str | Path, project: str = "polyqwen", name: str | None = None
    ) -> None:
        folder = Path(save_dir)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            super().__init__(
                name=name or folder.resolve().name,
                save_dir=folder,
                project=project,
                offline=True,
                mode="offline",  # whatever the environment says
                log_model=False,
            )
        except ModuleNotFoundError as error:
            raise ValueError("logger=wandb needs wandb: python -m pip install wandb") from error
