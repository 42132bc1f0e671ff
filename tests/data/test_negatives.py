"""Where a task's negatives come from: what is read, embedded and counted, and what is refused."""

import pytest
import torch

from polyqwen.build.run import build
from polyqwen.config.candidate_losses import further_losses
from polyqwen.config.check import resolved
from polyqwen.data.rows.task import Task
from polyqwen.losses.negatives import NEGATIVES_FROM, NegativesFrom
from polyqwen.losses.similarity import negative_mask
from polyqwen.losses.types import Pairs
from tests.conftest import Configure
from tests.training.test_module import batch_of

FIELDS = {"query_text": "a", "document_text": "b", "negatives": "n"}
ROW = {"a": "question", "b": "answer", "n": ["wrong", "worse"]}
every_source = pytest.mark.parametrize("source", NEGATIVES_FROM)


def task(source: NegativesFrom, **options: object) -> Task:
    return Task(**{"fields": FIELDS, "prefix": "<x>", "negatives_from": source, **options})


@every_source
def test_the_column_is_read_unless_the_batch_gives_the_negatives(source: NegativesFrom) -> None:
    found = task(source).example(ROW, "row 1").negatives
    assert [n.text for n in found] == ([] if source == "batch" else ["wrong", "worse"])
    if source == "batch":  # what is in it does not matter, nor does it make other tables
        assert task(source).example(ROW | {"n": 3}, "row 1").negatives == ()
        bare = {field: column for field, column in FIELDS.items() if field != "negatives"}
        assert task(source).read_fields == bare and task(source).fields == FIELDS


@every_source
@pytest.mark.parametrize(("rows", "given"), [(1, 0), (1, 2), (6, 0), (6, 3)])
def test_negatives_seen_are_those_of_the_mask(source: NegativesFrom, rows: int, given: int) -> None:
    total = rows * (2 + given)
    query, document, negative = torch.arange(total).split([rows, rows, rows * given])
    pairs = Pairs(
        query=torch.ones(rows, 1),
        document=torch.ones(rows, 1),
        query_key=query,
        document_key=document,
        negative=torch.ones(len(negative), 1),
        negative_key=negative,
        negative_row=torch.arange(rows).repeat_interleave(given),
        negatives_from=source,
    )
    seen = negative_mask(pairs).sum(dim=1).tolist()
    assert seen == [task(source).negatives_seen(rows, given)] * rows


def test_texts_with_labels_see_none() -> None:
    labelled = Task({"query_text": "a", "labels": "l"}, prefix="<x>")
    assert labelled.negatives_seen(64, 0) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"negatives_from": "mined"}, "one of both, batch, given, got 'mined'"),
        ({"fields": {"query_text": "a", "document_text": "b"}}, "fields: {negatives: COLUMN}"),
        ({"fields": {"query_text": "a", "labels": "l"}}, "a task with labels has no documents"),
    ],
)
def test_what_a_task_cannot_have_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        task(**{"source": "given", **options})


def test_rows_without_any_negative_are_refused_where_they_are_the_only_ones(
    configure: Configure,
) -> None:
    parts = build(
        configure("tasks.ocr.negatives_from=given", "tasks.vqa_single.negatives_from=given")
    )
    assert parts.data.splits.table("vqa_single", "train")
    with pytest.raises(ValueError, match=r"tasks\.ocr\.negatives_from=given, but no row of .*ocr"):
        parts.data.splits.table("ocr", "train")


def test_candidates_that_need_given_negatives_train_the_tasks_that_read_them(
    configure: Configure,
) -> None:
    two = ("library=embedding", "library_tasks=[vqa_single,vqa_multi]", "weighting=static")
    names = {}
    for source in ("both", "batch"):
        values = resolved(configure(*two, f"tasks.vqa_multi.negatives_from={source}"))
        found = further_losses(values).items()
        names[source] = {f.task for _, f in found if f.candidate == "triplet_given"}
        assert {f.task for _, f in found if f.candidate == "siglip"} == {"vqa_single", "vqa_multi"}
    assert names == {"both": {"vqa_single", "vqa_multi"}, "batch": {"vqa_single"}}


@every_source
def test_given_negatives_are_embedded_where_they_count(
    configure: Configure, source: NegativesFrom
) -> None:
    parts = build(configure(f"tasks.vqa_single.negatives_from={source}", "weighting=static"))
    batch = batch_of(parts, ["vqa_single"], rows=6)
    own, embeddings = batch.tasks["vqa_single"], parts.model(batch)
    contents = {*own.query.tolist(), *own.document.tolist()}
    contents |= set() if own.negative is None else set(own.negative.tolist())
    assert contents == set(range(len(embeddings)))
    assert (own.negative is None) == (source == "batch")
    pairs = parts.model.step_losses.pairs(embeddings, batch.tasks)["vqa_single"]
    assert pairs.negatives_from == source
    shown = pairs._replace(negative=None, negative_key=None, negative_row=None)
    loss = parts.model.losses["vqa_single"]
    kept = loss(shown._replace(negatives_from="both")).total
    assert torch.equal(loss(pairs).total, kept) == (source == "batch")


def test_the_length_of_rows_leaves_out_what_is_not_read(configure: Configure) -> None:
    costs = {}
    for source in ("both", "batch"):
        data = build(configure(f"tasks.vqa_single.negatives_from={source}")).data
        costs[source] = sum(data.splits.table("vqa_single", "train")["cost"])
    assert 0 < costs["batch"] < costs["both"]
