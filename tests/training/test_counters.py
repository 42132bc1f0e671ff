"""Work that a step may do, counted: what no clock needs to tell."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from benchmarks.suite.model import TINY, build
from benchmarks.suite.ours import MODES, Mode, Ours
from benchmarks.suite.workloads import CPU, GPU, TASK, Sizes, collator, lengths, pairs
from polyqwen.data.batch import Batch
from polyqwen.data.sampling.batches import split_step
from polyqwen.data.tables.dataset import Row
from polyqwen.training.module import EmbeddingModule

# encoder passes over each chunk, and passes over each layer of the language model
PASSES: dict[Mode, tuple[int, int]] = {"off": (1, 1), "checkpoint": (1, 2), "cached": (2, 2)}


@pytest.fixture(scope="module")
def module() -> EmbeddingModule:
    return build(TINY, collator(1).tokens.vocabulary, 32)


@contextmanager
def counted(module: EmbeddingModule) -> Iterator[Counter[str]]:
    """Forward passes of the vision tower, of the encoder and of the last layer."""
    seen: Counter[str] = Counter()
    encoder: Any = module.encoder
    parts = {
        "vision": encoder.model.visual,
        "encoder": encoder,
        "layer": encoder.model.language_model.layers[-1].mlp,
    }

    def count(name: str) -> Callable[..., None]:
        return lambda *_: seen.update([name])

    hooks = [part.register_forward_pre_hook(count(name)) for name, part in parts.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("mode", MODES)
def test_a_step_looks_at_pictures_once_and_at_texts_no_more_than_it_must(
    module: EmbeddingModule, mode: Mode
) -> None:
    batch = collator(128)(pairs("W3", 6, CPU))
    assert batch.images is not None and len(batch.chunks) > 2
    with counted(module) as seen:
        Ours(module, mode, batch).backward()
    encoder, layer = PASSES[mode]
    chunks = len(batch.chunks)
    assert seen == {"vision": 1, "encoder": encoder * chunks, "layer": layer * chunks}


def computed(batch: Batch) -> tuple[int, int]:
    """Real tokens and all tokens that the encoder reads."""
    real = sum(int(chunk.mask.sum()) for chunk in batch.chunks)
    return real, sum(chunk.ids.numel() for chunk in batch.chunks)


def as_text(rows: list[Row], make: Any) -> list[Row]:
    """Texts as long as the contents, so that no pictures need to be drawn to count tokens."""
    spare = len(make.tokens.frame(TASK, (), 0))
    found = iter(lengths(rows, make))

    def side(old: Any) -> Any:
        ids = tuple(300 + (old.key + i) % 1000 for i in range(next(found) - spare))
        return old._replace(ids=ids, image=None, size=(0, 0))

    return [row._replace(query=side(row.query), document=side(row.document)) for row in rows]


@pytest.mark.parametrize(
    ("sizes", "budget", "unsorted"), [(GPU, 4096, 0.6), (CPU, 1024, 0.6)], ids=["gpu", "cpu"]
)
def test_sorted_chunks_pad_at_most_a_twentieth(sizes: Sizes, budget: int, unsorted: float) -> None:
    """480 pairs of mixed lengths; one padded table of them all would be mostly padding."""
    make = collator(budget)
    rows = pairs("W3", 480, sizes)
    batch = make(as_text(rows, make))
    real, everything = computed(batch)
    found = lengths(rows, make)
    assert real == sum(found)
    assert 0 < 1 - real / everything <= 0.05
    assert max(chunk.ids.numel() for chunk in batch.chunks) <= budget
    assert 1 - real / (len(found) * max(found)) > unsorted


def test_ranks_carry_equal_work() -> None:
    make = collator(4096)
    rows = pairs("W3", 480, GPU)
    cost = np.array(lengths(rows, make)).reshape(-1, 2).sum(1)
    parts = split_step({TASK: np.arange(480)}, {TASK: cost}, world=4)
    loads = [cost[part[TASK]].sum() for part in parts]
    assert sorted(len(part[TASK]) for part in parts) == [120] * 4
    assert max(loads) / np.mean(loads) <= 1.02
    blind = [part.sum() for part in np.split(cost, 4)]
    assert max(blind) / np.mean(blind) > 1.02


def test_equal_contents_are_read_once() -> None:
    make = collator(4096)
    rows = pairs("W1", 8, CPU)
    again = [row._replace(document=rows[0].document) for row in rows]
    contents = [sum(len(chunk.ids) for chunk in make(own).chunks) for own in (rows, again)]
    assert contents == [16, 9]
    assert len(set(make(again).tasks[TASK].document.tolist())) == 1
