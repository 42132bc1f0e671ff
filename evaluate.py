"""Evaluates a trained run: python evaluate.py run_dir=FOLDER [data.root=FOLDER] [split=test]."""

import hydra
from omegaconf import DictConfig

from polyqwen.cli.resolvers import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Metrics, plots and a table of one run."""
    from polyqwen.cli.evaluate import evaluate

    evaluate(cfg)


if __name__ == "__main__":
    main()
