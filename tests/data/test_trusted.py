"""Trusted rows share nothing with what they are kept apart from."""

from typing import Any

import pytest
import torch
from datasets import Dataset

from polyqwen.build.run import Parts, build
from polyqwen.data.tables.splits import trusted_split
from tests.conftest import Configure


def side(key: int, image: str | None = None) -> dict[str, Any]:
    return {"key": key, "image": image}


def table(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> Dataset:
    queries, documents = zip(*rows, strict=True)
    return Dataset.from_dict({"query": list(queries), "document": list(documents)})


def test_texts_that_meet_in_any_pair_stay_together() -> None:
    rows = table([(side(2 * i), side(2 * i + 1)) for i in range(20)] + [(side(1), side(2))])
    for seed in range(5):  # pairs 0 and 1 are tied by the last one
        trusted, others = trusted_split(rows, 5, seed)
        assert len({0, 1, 20} & set(trusted)) in (0, 3)
        assert sorted([*trusted, *others]) == list(range(21)) and 5 <= len(trusted) <= 7


def test_pictures_stay_together_and_answers_tie_nothing() -> None:
    rows = table([(side(i, f"{i // 4}.png"), side(99)) for i in range(40)])
    trusted, others = trusted_split(rows, 10)
    assert len(trusted) == 12
    assert not {i // 4 for i in trusted} & {i // 4 for i in others}


def test_too_few_rows_are_refused() -> None:
    rows = table([(side(2 * i), side(2 * i + 1)) for i in range(10)])
    with pytest.raises(ValueError, match=r"data\.trusted_rows=8 would leave 2 of 10 dev rows"):
        trusted_split(rows, 8)
    trusted, others = trusted_split(rows, 0)
    assert not len(trusted) and others.tolist() == list(range(10))


def test_validation_leaves_trusted_rows_out(configure: Configure) -> None:
    parts: Parts = build(configure("data.trusted_rows=6", "data.eval_rows=null"))
    batch = parts.data.trusted_batch()
    for task, own in batch.tasks.items():
        loader = parts.data.eval_loader("dev", (task, "none"))
        seen = torch.cat([b.tasks[task].row for b in loader])
        assert len(own.row) >= 6 and not set(own.row.tolist()) & set(seen.tolist())
        assert len(own.row) + len(seen) == len(parts.data.splits.table(task, "dev"))
        test = parts.data.eval_loader("test", (task, "none"))
        assert sum(len(b.tasks[task].row) for b in test) == len(
            parts.data.splits.table(task, "test")
        )
    losses = parts.model.eval().weigher.losses_of(batch)
    assert torch.isfinite(losses).all() and not losses.requires_grad


def test_without_trusted_rows_there_is_nothing_to_learn_from(parts: Parts) -> None:
    with pytest.raises(ValueError, match="set data"):
        parts.data.trusted_batch()
