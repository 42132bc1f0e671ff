"""Writes the generated data set: six folders, three splits, the same bytes for the same seed."""

import json
import logging
import random
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from polyqwen.atomic_files import write_json
from polyqwen.data.generated.instructions import instruction_rows
from polyqwen.data.generated.labels import label_rows
from polyqwen.data.generated.ocr import ocr_rows
from polyqwen.data.generated.sentences import Meaning, MeaningPool
from polyqwen.data.generated.text_pairs import text_pair_rows
from polyqwen.data.generated.vqa import vqa_rows

logger = logging.getLogger(__name__)

VERSION = 7  # raise it with every change of what is written: older folders are made anew
MANIFEST = "manifest.json"
TASKS = ("text_pair", "ocr", "vqa_single", "vqa_multi", "instruction", "text_labels")

Row = dict[str, Any]


class _UsedUp:
    """What rows have used up, over all tasks and splits, so that splits share nothing."""

    def __init__(self, rows: int) -> None:
        # A pair and an instruction take at most two meanings each.
        self.meanings = MeaningPool(4 * rows)
        self.lists: set[Meaning] = set()
        self.texts: set[str] = set()
        self.remarks: set[str] = set()

    def rows(self, task: str, split: str, count: int, seed: int, root: Path) -> Iterator[Row]:
        """The rows of one task and split, from a random stream of their own."""
        rng = random.Random(f"{seed}/{task}/{split}")
        folder = f"images/{task}/{split}"
        if task == "text_pair":
            return text_pair_rows(rng, count, self.meanings)
        if task == "instruction":
            return instruction_rows(rng, count, self.meanings, self.lists)
        if task == "text_labels":
            return label_rows(rng, count, self.remarks)
        if task == "ocr":
            return ocr_rows(rng, count, self.texts, root, folder)
        return vqa_rows(rng, count, split, root, folder, multi=task == "vqa_multi")


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False)
            file.write(unicodedata.normalize("NFC", line) + "\n")


def _read_manifest(root: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _manifest(seed: int, train_rows: int, eval_rows: int) -> dict[str, Any]:
    return {
        "generator": "polyqwen.data.generated",
        "version": VERSION,
        "seed": seed,
        "train_rows": train_rows,
        "eval_rows": eval_rows,
    }


def is_generated(root: Path, *, seed: int, train_rows: int, eval_rows: int) -> bool:
    """Whether `generate` would find the data set of these arguments in ``root``."""
    return _read_manifest(root) == _manifest(seed, train_rows, eval_rows)


def _put_in_place(made: Path, root: Path, wanted: dict[str, Any]) -> None:
    """Moves a finished folder to its name; an older set of ours there moves to its side."""
    try:
        if root.exists() and _read_manifest(root) != wanted:
            root.rename(made.with_name("old"))
        made.rename(root)
    except OSError:
        if _read_manifest(root) != wanted:  # otherwise another process was faster: same bytes
            raise


def generate(root: Path, *, seed: int = 0, train_rows: int = 4000, eval_rows: int = 400) -> Path:
    """Writes ``root/<task>/{train,dev,test}.jsonl`` and the pictures, or finds them there.

    Sentences, lines of writing and scenes of one split appear in no other. Test and dev rows depend
    on ``seed`` and ``eval_rows`` only, so runs with more or fewer training rows are compared on the
    same test. The set is made in a hidden folder beside ``root`` and renamed when complete: a
    killed run leaves that hidden folder, never half a data set.

    Args:
        root: the data set's folder. If it holds a set of the same version and parameters, nothing
            is done; a generated set of other parameters is replaced.
        seed: the seed of all choices.
        train_rows: rows of each task's train split, at least 1; 11 000 is about the most, then
            the meanings of the lexicon run short.
        eval_rows: rows of each task's dev and of its test split, at least 1.

    Returns:
        ``root``.

    Raises:
        ValueError: a number of rows is below 1 or above what the lexicon can say.
        FileExistsError: ``root`` holds something else than a generated data set.
    """
    root = Path(root)
    for key, value in (("train_rows", train_rows), ("eval_rows", eval_rows)):
        if value < 1:
            raise ValueError(f"{key}={value}: at least 1 row is needed")
    wanted = _manifest(seed, train_rows, eval_rows)
    found = _read_manifest(root)
    if found == wanted:
        return root
    ours = found is not None and found.get("generator") == wanted["generator"]
    if root.exists() and not ours and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} is not empty and not generated: give another folder")

    content = _UsedUp(train_rows + 2 * eval_rows)
    place = root.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=place.parent, prefix=f".{place.name}.", ignore_cleanup_errors=True
    ) as hidden:
        made = Path(hidden) / "made"
        # Train last: whatever the number of its rows, the others stay as they are.
        for split, count in (("test", eval_rows), ("dev", eval_rows), ("train", train_rows)):
            for task in TASKS:
                (made / task).mkdir(parents=True, exist_ok=True)
                rows = content.rows(task, split, count, seed, made)
                _write_jsonl(made / task / f"{split}.jsonl", rows)
        write_json(made / MANIFEST, wanted)
        _put_in_place(made, root, wanted)
    logger.info("generated data set in %s (%d + 2 × %d rows a task)", root, train_rows, eval_rows)
    return root
