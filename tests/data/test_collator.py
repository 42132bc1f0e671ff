"""The collator: one place per content, placeholders that fit, positions as the model wants them."""

from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._pytree import tree_flatten

from polyqwen.build.run import Parts, build
from polyqwen.data.batch import Batch
from polyqwen.data.collator import mrope_positions
from polyqwen.data.tables.dataset import ABLATIONS, MultiTaskDataset, Row
from tests.conftest import Configure
from tests.models.test_encoder import IMAGE, tiny

TASKS = ("text_pair", "ocr", "vqa_single", "vqa_multi")


def rows_of(parts: Parts, *addresses: tuple[str, int], ablation: str = "none") -> list[Row]:
    return MultiTaskDataset(parts.data.splits.tables("train"), ablation, "ocr").__getitems__(
        addresses
    )


def contents_of(batch: Batch) -> list[list[int]]:
    return [
        ids[mask].tolist()
        for chunk in batch.chunks
        for ids, mask in zip(chunk.ids, chunk.mask, strict=True)
    ]


def test_indices_lead_to_the_right_contents(parts: Parts) -> None:
    rows = rows_of(parts, *[(task, i) for task in TASKS for i in range(4)])
    batch = parts.data.collator(rows)
    contents, tokens = contents_of(batch), parts.data.tokens
    assert list(batch.tasks) == list(TASKS)
    for task in TASKS:
        own = batch.tasks[task]
        assert own.row.tolist() == [0, 1, 2, 3]
        for i, row in enumerate(r for r in rows if r.task == task):
            document = contents[own.document[i]]
            assert document == tokens.frame(task, row.document.ids, 0)
            query = [t for t in contents[own.query[i]] if t != tokens.image_id]
            assert query[-len(row.query.ids) - 1 : -1] == list(row.query.ids)
            assert own.document_key[i] == row.document.key
    assert (batch.tasks["text_pair"].score is not None) and batch.tasks["ocr"].score is None


def test_equal_contents_and_pictures_are_there_once(parts: Parts) -> None:
    twice = rows_of(parts, ("vqa_single", 0), ("vqa_single", 0), ("vqa_single", 1))
    batch = parts.data.collator(twice)
    own = batch.tasks["vqa_single"]
    assert own.query[0] == own.query[1] and own.document[0] == own.document[1]
    assert len(contents_of(batch)) == len(
        {s for r in twice for s in (r.query, r.document, *r.negatives)}
    )
    assert batch.images is not None
    assert len(batch.images.grid) == len({r.query.image for r in twice})


def test_placeholders_count_the_visual_tokens(parts: Parts) -> None:
    batch = parts.data.collator(rows_of(parts, *[("ocr", i) for i in range(6)]))
    assert batch.images is not None
    total = int(batch.images.grid.prod(-1).sum()) // 4
    assert len(batch.images.patches) == 4 * total
    placed = torch.cat([c.visual for c in batch.chunks if c.visual is not None])
    assert sorted(placed.tolist()) == list(range(total))
    for chunk in batch.chunks:
        count = int((chunk.ids == parts.data.tokens.image_id).sum())
        assert count == (0 if chunk.visual is None else len(chunk.visual))


def test_short_contents_share_chunks_with_short_ones(parts: Parts) -> None:
    rows = rows_of(parts, *[(task, i) for task in TASKS for i in range(8)])
    parts.data.collator.chunk_tokens = 256
    batch = parts.data.collator(rows)
    lengths = [len(ids) for ids in contents_of(batch)]
    assert lengths == sorted(lengths) and len(batch.chunks) > 2
    assert all(chunk.ids.numel() <= 256 or len(chunk.ids) == 1 for chunk in batch.chunks)
    parts.data.collator.chunk_tokens = 10**6
    whole = parts.data.collator(rows)
    assert len(whole.chunks) == 1 and contents_of(whole) == contents_of(batch)


def test_lengths_are_told_and_rounded_up_within_the_budget(parts: Parts) -> None:
    rows = rows_of(parts, *[(task, i) for task in TASKS for i in range(8)])
    parts.data.collator.chunk_tokens, parts.data.collator.pad_to_multiple = 256, 16
    batch = parts.data.collator(rows)
    for chunk in batch.chunks:
        assert chunk.lengths == chunk.mask.sum(1).tolist()
        assert chunk.ids.shape[1] % 16 == 0 and chunk.ids.shape[1] - max(chunk.lengths) < 16
        assert chunk.ids.numel() <= 256 or len(chunk.ids) == 1
    assert batch.images is not None
    assert batch.images.lengths == batch.images.grid.prod(1).tolist()


def test_chunking_changes_no_embedding(parts: Parts) -> None:
    rows = rows_of(parts, *[(task, i) for task in TASKS for i in range(4)])
    model = parts.model.eval()
    parts.data.collator.chunk_tokens = 10**6
    whole = model(parts.data.collator(rows))
    parts.data.collator.chunk_tokens = 64
    cut = parts.data.collator(rows)
    assert len(cut.chunks) > 3
    assert_close(model(cut), whole, atol=1e-5, rtol=1e-4)


@given(
    before=st.integers(0, 4),
    down=st.integers(1, 5),
    across=st.integers(1, 5),
    after=st.integers(1, 4),
)
def test_positions_equal_the_models_own(before: int, down: int, across: int, after: int) -> None:
    ids = [1] * before + [IMAGE] * (down * across) + [2] * after
    expected, _ = MODEL.get_rope_index(
        torch.tensor([ids]),
        mm_token_type_ids=torch.tensor([[int(i == IMAGE) for i in ids]]),
        image_grid_thw=torch.tensor([[1, 2 * down, 2 * across]]),
    )
    ours = mrope_positions(len(ids), before, (down, across))
    assert_close(torch.from_numpy(ours), expected[:, 0])


MODEL = tiny().model


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablations_take_from_the_query_only(parts: Parts, ablation: str) -> None:
    plain = rows_of(parts, ("vqa_single", 3))[0]
    row = rows_of(parts, ("vqa_single", 3), ablation=ablation)[0]
    wrong = "ocr" if ablation == "wrong_prefix" else None
    assert row.document == plain.document._replace(prefix=wrong)
    assert row.query.key == plain.query.key and row.query.prefix == wrong
    assert (row.query.ids == ()) == (ablation == "no_question")
    assert (row.query.image != plain.query.image) == (ablation == "shuffled_pictures")
    patches = parts.data.collator([row]).images.patches
    assert (patches.unique().numel() == 1) == (ablation == "grey_pictures")
    text = rows_of(parts, ("text_pair", 0), ablation="shuffled_pictures")[0]
    assert text == rows_of(parts, ("text_pair", 0))[0]


def test_a_wrong_prefix_is_another_tasks_on_both_sides(parts: Parts) -> None:
    address = ("text_pair", 0)
    plain, wrong = (
        rows_of(parts, address, ablation=ablation)[0] for ablation in ("none", "wrong_prefix")
    )
    own, other = (parts.data.tokens.frame(task, (), 0)[0] for task in ("text_pair", "ocr"))
    for row, prefix in ((plain, own), (wrong, other)):
        (ids,) = {tuple(chunk.ids[:, 0].tolist()) for chunk in parts.data.collator([row]).chunks}
        assert set(ids) == {prefix}
    assert own != other and wrong.query.ids == plain.query.ids


def test_a_task_alone_has_no_wrong_prefix(configure: Configure) -> None:
    with pytest.raises(ValueError, match="needs a second task"):
        MultiTaskDataset({}, "wrong_prefix")
    data = build(configure("task=[text_pair,ocr]")).data
    data.splits.ablations["dev"] = ["wrong_prefix", "shuffled_pictures"]
    views = data.splits.views("dev")
    assert ("text_pair", "wrong_prefix") in views
    assert ("text_pair", "shuffled_pictures") not in views
    (batch,) = data.eval_loader("dev", ("text_pair", "wrong_prefix"))
    prefix = data.tokens.frame("ocr", (), 0)[0]
    assert {int(i) for chunk in batch.chunks for i in chunk.ids[:, 0]} == {prefix}


def test_unknown_ablation_is_refused(parts: Parts) -> None:
    with pytest.raises(ValueError, match="ablation must be one of"):
        MultiTaskDataset({}, "blind")  # type: ignore[arg-type]


def test_a_batch_from_a_worker_is_the_same(parts: Parts) -> None:
    dataset = MultiTaskDataset(parts.data.splits.tables("train"))
    batch = parts.data.collator([dataset[task, i] for task in ("text_pair", "ocr") for i in (0, 1)])
    sent = ForkingPickler.dumps(batch)
    again = ForkingPickler.loads(sent)
    assert type(again) is Batch
    first, second = tree_flatten(batch), tree_flatten(again)
    assert first[1] == second[1]
    for a, b in zip(first[0], second[0], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    again.chunks[0].ids.add_(1)  # memory of its own
