"""Files of TensorBoard's projector: vectors, what they stand for, and their thumbnails."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyqwen.atomic_files import write_text
from polyqwen.tensorboard.thumbnails import sprite

COLUMNS = ("text", "task · side", "task", "side", "kind", "rank")  # the first labels points
FOLDER, CONFIG = "projector", "projector_config.pbtxt"
LONGEST = 120  # characters of a text
Line = tuple[str | int, ...]


class Cloud(NamedTuple):
    """Points of one embedding space.

    Attributes:
        vectors: (P, D).
        lines: (P) values of ``COLUMNS``.
        cards: (P) thumbnails, all of one size.
    """

    vectors: NDArray[np.float32]
    lines: Sequence[Line]
    cards: Sequence[Image.Image]


def write_cloud(cloud: Cloud, folder: Path, name: str) -> Path:
    """Writes ``projector/<name>/`` and a configuration that names all clouds of the folder.

    An older cloud of the same name is replaced: a resumed run repeats its last step.

    Args:
        cloud: the points.
        folder: of the run's event files.
        name: of the cloud, such as ``step_000400``; the last by name is shown first.

    Returns:
        The folder written.

    Raises:
        ValueError: no points, or not one line and card for each.
    """
    count = len(cloud.vectors)
    if not count or not count == len(cloud.lines) == len(cloud.cards):
        raise ValueError(
            f"{count} vectors, {len(cloud.lines)} lines, {len(cloud.cards)} cards: "
            "each point needs one of all"
        )
    out = Path(folder) / FOLDER / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows = ["\t".join(f"{value:.5g}" for value in vector) for vector in cloud.vectors]
    write_text(out / "vectors.tsv", "\n".join(rows) + "\n")
    lines = ["\t".join(_cell(value) for value in line) for line in [COLUMNS, *cloud.lines]]
    write_text(out / "metadata.tsv", "\n".join(lines) + "\n")
    sprite(list(cloud.cards)).quantize(256).save(out / "sprite.png", optimize=True)
    write_text(out / "size", str(cloud.cards[0].width))
    _write_config(Path(folder))
    return out


def _cell(value: str | int) -> str:
    """One line without tabs."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _write_config(folder: Path) -> None:
    """The text form of TensorBoard's ``ProjectorConfig``; whole or not there."""
    blocks = []
    for cloud in sorted((folder / FOLDER).iterdir(), reverse=True):
        if not (cloud / "size").is_file():
            continue  # torn
        size = int((cloud / "size").read_text(encoding="utf-8"))
        path = f"{FOLDER}/{cloud.name}"
        blocks.append(
            "embeddings {\n"
            f"  tensor_name: {json.dumps(cloud.name)}\n"
            f"  tensor_path: {json.dumps(f'{path}/vectors.tsv')}\n"
            f"  metadata_path: {json.dumps(f'{path}/metadata.tsv')}\n"
            "  sprite {\n"
            f"    image_path: {json.dumps(f'{path}/sprite.png')}\n"
            f"    single_image_dim: {size}\n    single_image_dim: {size}\n  }}\n}}\n"
        )
    write_text(folder / CONFIG, "".join(blocks))
