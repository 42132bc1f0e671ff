"""Embedding a whole split outside the trainer, and comparing two models on it."""

import re

import pytest
import torch
from scipy.stats import spearmanr
from torch.testing import assert_close

from polyqwen.build.run import Parts
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.metrics.choice import hardest_queries, right_documents, spread_queries
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.report.results_table import group_rows, groups_markdown, groups_table
from polyqwen.report.retrieval_examples import gallery_rows
from polyqwen.training.evaluation import advantage, choose, embed_view, measure
from polyqwen.training.step import pairs_of_task


def test_rows_come_back_in_order_whatever_the_batches(parts: Parts) -> None:
    view = embed_view(parts.model, parts.data.eval_loader("test", ("ocr", "none")))
    assert view.rows.tolist() == list(range(32))
    dataset = MultiTaskDataset(parts.data.splits.tables("test"))
    rows = [dataset["ocr", i] for i in (5, 0)]
    batch = parts.data.collator(rows)
    alone = pairs_of_task(parts.model.eval()(batch), batch.tasks["ocr"])
    assert_close(view.pairs.query[[5, 0]], alone.query, atol=1e-5, rtol=1e-4)
    assert view.pairs.document_key[[5, 0]].tolist() == [row.document.key for row in rows]
    assert view.pairs.score is None


def test_measuring_starts_afresh_and_leaves_the_mode_alone(parts: Parts) -> None:
    view = embed_view(parts.model, parts.data.eval_loader("test", ("text_pair", "none")))
    assert not any(module.training for module in parts.model.modules())  # no dropout in embeddings
    parts.model.train()
    metrics = parts.model.metrics["text_pair"]
    first, few, second = (
        measure(metrics, pairs) for pairs in (view.pairs, choose(view.pairs, range(8)), view.pairs)
    )
    assert first == second and few["queries"] <= 8 < first["queries"]
    assert parts.model.training and parts.model.encoder.training
    cosines = (view.pairs.query * view.pairs.document).sum(dim=1)
    assert first["spearman"] == pytest.approx(spearmanr(cosines, view.pairs.score).statistic)
    assert 0 < metrics.chance_of(view.pairs)["recall@1"] < 0.2


def pairs_of(query: torch.Tensor, document: torch.Tensor) -> PairEmbeddings:
    keys = torch.arange(len(query))
    return PairEmbeddings(
        torch.nn.functional.normalize(query, dim=-1),
        torch.nn.functional.normalize(document, dim=-1),
        keys,
        keys + 1000,
    )


def test_advantage_tells_a_good_model_from_a_random_one(parts: Parts) -> None:
    documents = torch.randn(60, 16)
    good, bad = pairs_of(documents, documents), pairs_of(torch.randn(60, 16), documents)
    name, interval = advantage(parts.model.metrics["ocr"], good, bad)
    assert name == "mrr" and interval.low > 0.5
    assert advantage(parts.model.metrics["ocr"], good, good)[1].difference == 0
    assert choose(good, [3, 1]).document_key.tolist() == [1003, 1001]


def test_gallery_shows_queries_with_pictures_and_marks_what_is_right(parts: Parts) -> None:
    view = embed_view(parts.model, parts.data.eval_loader("test", ("vqa_single", "none")))
    queries = spread_queries(view.pairs, None, 3)
    rows = gallery_rows(parts.data, "vqa_single", "test", view.pairs, queries)
    dataset = MultiTaskDataset(parts.data.splits.tables("test"))
    asked = dataset.texts("vqa_single", queries.tolist())
    assert [row["query_text"] for row in rows] == [entry["query_text"] for entry in asked]
    assert len(rows) == 3 and all(row["query_image"] is not None for row in rows)
    for row in rows:
        assert all(r.correct == (r.text == row["answer_text"]) for r in row["results"])
        cosines = [r.cosine for r in row["results"]]
        assert cosines == sorted(cosines, reverse=True)
        rank = int(re.match(r"rank (\d+) of", row["answer_note"]).group(1))
        found = [r.correct for r in row["results"]]
        assert found.index(True) + 1 == rank if rank <= len(found) else not any(found)


def test_hardest_queries_are_those_whose_answer_stands_lowest() -> None:
    generator = torch.Generator().manual_seed(0)
    query, document = torch.randn(2, 40, 8, generator=generator)
    pairs = pairs_of(query, document)
    cosines = pairs.query @ pairs.document.T
    own = cosines.diagonal()
    rank = (cosines > own[:, None]).sum(dim=1)
    wrong = cosines.masked_fill(torch.eye(40, dtype=torch.bool), -2).amax(dim=1)
    margin = own - wrong
    naive = sorted(range(40), key=lambda i: (-int(rank[i]), float(margin[i])))
    assert len(set(rank.tolist())) < 30  # some ranks are shared, so margins decide
    assert hardest_queries(pairs, None, 10).tolist() == naive[:10]
    assert len(hardest_queries(pairs, None, 99)) == 40


def test_a_query_with_two_answers_is_as_hard_as_its_better_one() -> None:
    document = torch.eye(4)
    query = torch.stack([document[1], document[1], document[3], document[2]])
    pairs = pairs_of(query, document)._replace(query_key=torch.tensor([7, 7, 8, 9]))
    right = right_documents(pairs, torch.tensor([0, 2]), torch.arange(4), None)
    assert right.tolist() == [[True, True, False, False], [False, False, True, False]]
    assert hardest_queries(pairs, None, 1).tolist() in ([2], [3])  # both answered wrongly
    scored = pairs._replace(score=torch.tensor([0.1, 0.2, 1.0, 0.3]))
    assert hardest_queries(scored, 0.9, 9).tolist() == [2]
    assert hardest_queries(scored, 0.9, 9).tolist() == spread_queries(scored, 0.9, 9).tolist()
    assert hardest_queries(scored._replace(score=torch.zeros(4)), 0.9, 9).tolist() == []


def test_groups_as_tables() -> None:
    gain = {"metric": "mrr", "difference": 0.25, "low": 0.1, "high": 0.4}
    entry = {
        "rows": 40,
        "trained": {"pool": 30.0, "mrr": 0.5},
        "untrained": {"mrr": 0.25},
        "advantage_over_untrained": gain,
    }
    groups = {"ocr": {"lang=vi": entry}}
    line = ("ocr", "lang=vi", "40", "30", "mrr", "0.500", "0.250", "+0.250 [+0.100, +0.400]")
    assert group_rows(groups) == [line]
    assert groups_table(groups).row_count == 1
    assert "| ocr | lang=vi | 40 |" in groups_markdown(groups)
