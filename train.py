"""Trains an embedding model: python train.py [experiment=NAME] [key=value …]."""

import hydra
from omegaconf import DictConfig

from polyqwen.cli.resolvers import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep."""
    from polyqwen.cli.launch import device_count, launch, launched_outside
    from polyqwen.cli.resume import resume

    resume(cfg)
    processes = device_count(cfg)
    if processes > 1 and not launched_outside():
        launch(cfg, processes)
    else:
        from polyqwen.cli.train import train

        train(cfg)


if __name__ == "__main__":
    main()
