"""Evaluates a trained run: python evaluate.py run_dir=FOLDER [data.root=FOLDER] [split=test]."""

from omegaconf import DictConfig

from polyqwen.app.entry import command


def main(cfg: DictConfig) -> None:
    """Metrics, plots and a table of one run."""
    from polyqwen.app.evaluate import evaluate

    evaluate(cfg)


if __name__ == "__main__":
    command("evaluate", main)
