"""Write a trained model as a folder to share."""

import argparse
import shutil
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the folder to write and its format."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="folder of a run")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument("--checkpoint", default="last", help="last, best or a path")
    parser.add_argument("--default-task", help="the task of inputs that name none")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="sentence-transformers' own modules alone, no trust_remote_code (texts; not for "
        "attention pooling or residual projections)",
    )
    parser.add_argument(
        "--onnx", action="store_true", help="the text side as onnx/model.onnx too (needs onnx)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the folder and prints where."""
    given = arguments
    export(given.folder, given.to, given.checkpoint, given.default_task, given.plain, given.onnx)


def export(
    run: Path,
    to: Path,
    checkpoint: str = "last",
    task: str | None = None,
    plain: bool = False,
    onnx: bool = False,
) -> None:
    """Writes the folder whole, or nothing: it is made beside its place and renamed.

    Raises:
        ValueError: the run or its weights cannot be used, ``to`` is not empty, or the model has
            parts that the folder cannot hold.
    """
    from polyqwen.config.check import load_saved_config, resolved
    from polyqwen.export.card import write_card
    from polyqwen.export.folder import save, write_sums
    from polyqwen.export.onnx import save_onnx
    from polyqwen.export.plain import save_plain
    from polyqwen.inference.load import run_parts
    from polyqwen.inference.model import EmbeddingModel

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"--to {to} is there already; choose another folder, or remove it")
    if not (run / "config.yaml").is_file():
        raise ValueError(f"{run} is not the folder of a run: it has no config.yaml")
    model = EmbeddingModel(**run_parts(run, checkpoint))
    if task is not None:
        model.default_task = model.known(task)
    temporary = to.with_name(f".{to.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        settings = (save_plain if plain else save)(model, temporary)
        if onnx:
            save_onnx(model, temporary)
        shutil.copyfile(run / "config.yaml", temporary / "run_config.yaml")
        config = resolved(load_saved_config(run / "config.yaml"))
        write_card(temporary, settings, model.dimension, run, config, to.resolve().name, plain)
        write_sums(temporary)
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.exists():
            to.rmdir()
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"written to {to}; see {to / 'README.md'}")
