"""Metrics against hand-computed values, naive loops, scipy and torchmetrics."""

import itertools
import math
import multiprocessing as mp
import os
import tempfile
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap, spearmanr
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics.functional.retrieval import (
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from polyqwen.metrics.bootstrap import paired_bootstrap, paired_bootstrap_spearman
from polyqwen.metrics.ranks import retrieval_ranks
from polyqwen.metrics.retrieval import (
    RetrievalMetrics,
    expected_ndcg,
    expected_recall,
    expected_reciprocal_rank,
)
from polyqwen.metrics.similarity import (
    pair_cosines,
    similarity_gap,
    similarity_samples,
    spearman,
)
from polyqwen.metrics.space import (
    SPACE_KEYS,
    alignment,
    effective_rank,
    modality_gap,
    sample_distinct,
    space_health,
    uniformity,
)
from polyqwen.metrics.split import ViewMetrics
from polyqwen.metrics.task_metrics import TaskMetrics
from polyqwen.metrics.types import PairEmbeddings, distinct, matching_rows


def random_pairs(
    rows: int = 40, size: int = 8, noise: float = 0.8, seed: int = 0, scored: bool = False
) -> PairEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    document = normalize(torch.randn(rows, size, generator=generator), dim=1)
    query = normalize(document + noise * torch.randn(rows, size, generator=generator), dim=1)
    score = torch.rand(rows, generator=generator) if scored else None
    return PairEmbeddings(query, document, torch.arange(rows), 1000 + torch.arange(rows), score)


def with_duplicates(pairs: PairEmbeddings) -> PairEmbeddings:
    """Few distinct queries and documents, so that both sides repeat over the rows."""
    rows = torch.arange(len(pairs.query))
    document = (rows * 7) % 23
    query = torch.where(rows % 2 == 0, document, rows) % 17
    return pairs._replace(
        query=pairs.query[query],
        document=pairs.document[document],
        query_key=query * 31 - 5,
        document_key=document * 13 + 2,
    )


def collapsed(rows: int = 30, scored: bool = False) -> PairEmbeddings:
    point = normalize(torch.ones(rows, 4), dim=1)
    return random_pairs(rows, 4, scored=scored)._replace(query=point, document=point)


def take(pairs: PairEmbeddings, rows: Tensor) -> PairEmbeddings:
    return PairEmbeddings(*[None if field is None else field[rows] for field in pairs])


def on_circle(*degrees: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def naive(pairs: PairEmbeddings, min_score: float | None = None) -> list[dict[str, float]]:
    """Per distinct query: recall, reciprocal rank and nDCG, with a sorted list and no ties."""
    rows = range(len(pairs.query))
    documents = {int(pairs.document_key[i]): pairs.document[i] for i in reversed(rows)}
    relevant: dict[int, set[int]] = {}
    queries = {}
    for i in rows:
        if min_score is None or pairs.score[i] >= min_score:
            relevant.setdefault(int(pairs.query_key[i]), set()).add(int(pairs.document_key[i]))
            queries.setdefault(int(pairs.query_key[i]), pairs.query[i])
    results = []
    for key in sorted(queries):
        order = sorted(documents, key=lambda d, k=key: -float(queries[k] @ documents[d]))
        ranks = sorted(order.index(document) + 1 for document in relevant[key])
        ideal = sum(1 / math.log2(1 + i) for i in range(1, min(len(ranks), 10) + 1))
        result = {f"recall@{k}": float(ranks[0] <= k) for k in (1, 5, 10)}
        gain = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= 10)
        results.append({**result, "mrr": 1 / ranks[0], "ndcg@10": gain / ideal})
    return results


def naive_means(pairs: PairEmbeddings, min_score: float | None = None) -> dict[str, float]:
    results = naive(pairs, min_score)
    return {name: sum(row[name] for row in results) / len(results) for name in results[0]}


def test_retrieval_by_hand() -> None:
    pairs = PairEmbeddings(
        query=on_circle(0, 50, 90),
        document=on_circle(10, 85, 60),  # the third query prefers the second document
        query_key=torch.tensor([1, 2, 3]),
        document_key=torch.tensor([4, 5, 6]),
    )
    ranks = retrieval_ranks(pairs)
    assert ranks.above.tolist() == [0, 1, 1]
    assert ranks.tied.tolist() == [1, 1, 1]
    metrics = RetrievalMetrics()(pairs)
    assert metrics["recall@1"] == pytest.approx(1 / 3)
    assert metrics["recall@5"] == 1
    assert metrics["mrr"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert metrics["ndcg@10"] == pytest.approx((1 + 2 / math.log2(3)) / 3)
    assert (metrics["pool"], metrics["queries"]) == (3, 3)


@pytest.mark.parametrize("min_score", [None, 0.5])
@pytest.mark.parametrize("duplicates", [False, True])
def test_retrieval_equals_naive_loop(min_score: float | None, duplicates: bool) -> None:
    pairs = random_pairs(60, scored=True)
    pairs = with_duplicates(pairs) if duplicates else pairs
    expected = naive_means(pairs, min_score)
    assert 0.05 < expected["recall@1"] < 0.95
    metrics = RetrievalMetrics(min_score=min_score)(pairs)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics["pool"] == len(pairs.document_key.unique())
    assert metrics["queries"] <= len(pairs.query_key.unique())


def test_retrieval_equals_torchmetrics() -> None:
    pairs = random_pairs(50, noise=1.5)
    ranks = retrieval_ranks(pairs)
    recall, reciprocal, ndcg = (
        expected_recall(ranks, 5),
        expected_reciprocal_rank(ranks),
        expected_ndcg(ranks),
    )
    assert recall.unique().numel() == 2
    for i, query in enumerate(pairs.query):
        # torchmetrics drops documents of negative scores, so all are shifted above 0.
        cosines, target = pairs.document @ query + 1, torch.arange(50) == i
        assert recall[i] == retrieval_recall(cosines, target, top_k=5)
        assert reciprocal[i] == pytest.approx(retrieval_reciprocal_rank(cosines, target).item())
        expected = retrieval_normalized_dcg(cosines, target, top_k=10).item()
        assert ndcg[i] == pytest.approx(expected)


def test_several_positives_by_hand() -> None:
    pairs = PairEmbeddings(
        query=on_circle(0, 0, 180),
        document=on_circle(20, 60, 40),
        query_key=torch.tensor([1, 1, 2]),  # one query, relevant on places 1 and 3
        document_key=torch.tensor([4, 5, 6]),
    )
    ranks = retrieval_ranks(pairs)
    assert expected_recall(ranks, 1).tolist() == [1, 0]
    assert expected_reciprocal_rank(ranks).tolist() == [1, pytest.approx(1 / 2)]
    ideal = 1 + 1 / math.log2(3)
    assert expected_ndcg(ranks)[0] == pytest.approx((1 + 1 / 2) / ideal)


def test_low_scores_are_distractors_and_no_queries() -> None:
    pairs = PairEmbeddings(
        query=on_circle(0, 90),
        document=on_circle(30, 10),  # the pair scored low offers the nearer document
        query_key=torch.tensor([1, 2]),
        document_key=torch.tensor([3, 4]),
        score=torch.tensor([0.7, 0.1]),
    )
    metrics = RetrievalMetrics(min_score=0.7)(pairs)  # 0.7 in float32 still counts
    assert (metrics["queries"], metrics["pool"], metrics["mrr"]) == (1, 2, 0.5)


def shuffled_expectation(
    cosines: list[float], relevant: set[int], k: int
) -> tuple[float, float, float]:
    """Mean over every order of the documents, stable-sorted by cosine."""
    recall, reciprocal, ndcg = [], [], []
    ideal = sum(1 / math.log2(1 + i) for i in range(1, len(relevant) + 1))
    for order in itertools.permutations(range(len(cosines))):
        ranked = sorted(order, key=lambda i: -cosines[i])
        ranks = [place for place, i in enumerate(ranked, start=1) if i in relevant]
        recall.append(ranks[0] <= k)
        reciprocal.append(1 / ranks[0])
        ndcg.append(sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / ideal)
    return float(np.mean(recall)), float(np.mean(reciprocal)), float(np.mean(ndcg))


@pytest.mark.parametrize(
    ("degrees", "relevant"),
    [
        ((20, 20, 20, 50, 10), {0}),
        ((20, 20, 20, 50, 10), {0, 1}),
        ((20, 20, 20, 50, 10), {1, 3}),
        ((20, 20, 20, 20, 20), {2, 4}),
        ((20, 20, 50, 50, 50), {3, 4}),
    ],
)
def test_ties_are_the_mean_over_all_orders(degrees: tuple[float, ...], relevant: set[int]) -> None:
    rows = len(degrees)
    query_key = torch.tensor([0 if i in relevant else i + 1 for i in range(rows)])
    query = torch.where((query_key == 0)[:, None], on_circle(0), on_circle(200))
    pairs = PairEmbeddings(query, on_circle(*degrees), query_key, torch.arange(rows))
    ranks, k = retrieval_ranks(pairs), 2
    expected = shuffled_expectation(pairs.document[:, 0].tolist(), relevant, 2)
    got = (expected_recall(ranks, k), expected_reciprocal_rank(ranks))
    assert [value[0].item() for value in got] == pytest.approx(expected[:2])
    # The ideal of nDCG is cut at k as well; both sets have at most two relevant documents.
    assert expected_ndcg(ranks, k)[0].item() == pytest.approx(expected[2])


def test_collapse_scores_chance() -> None:
    pairs = collapsed(30)
    metrics = RetrievalMetrics()(pairs)
    assert metrics["recall@1"] == pytest.approx(1 / 30)
    assert metrics["recall@10"] == pytest.approx(10 / 30)
    assert metrics["mrr"] == pytest.approx(sum(1 / i for i in range(1, 31)) / 30)
    assert metrics == pytest.approx(RetrievalMetrics().chance(pairs))
    noisy = pairs._replace(document=normalize(pairs.document + 1e-8 * torch.randn(30, 4), dim=1))
    assert RetrievalMetrics()(noisy) == pytest.approx(metrics)


def test_collapse_with_several_positives_scores_chance() -> None:
    pairs = with_duplicates(collapsed(80))
    metrics = RetrievalMetrics()(pairs)
    assert metrics == pytest.approx(RetrievalMetrics().chance(pairs))
    assert metrics["recall@1"] > 2 / 23  # several of the 23 documents are right


def test_chance_of_random_embeddings() -> None:
    means = [RetrievalMetrics()(random_pairs(40, noise=1e6, seed=i)) for i in range(60)]
    for name, expected in RetrievalMetrics().chance(random_pairs(40)).items():
        assert np.mean([mean[name] for mean in means]) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_block_size_is_irrelevant(block: int) -> None:
    pairs = with_duplicates(random_pairs(60))
    blocked = retrieval_ranks(pairs, block=block)
    for expected, got in zip(retrieval_ranks(pairs), blocked, strict=True):
        assert torch.equal(torch.as_tensor(expected), torch.as_tensor(got))


@pytest.mark.parametrize("scored", [False, True])
def test_row_order_is_irrelevant(scored: bool) -> None:
    pairs = with_duplicates(random_pairs(60, scored=scored))
    metrics = TaskMetrics(scored, min_score=0.4 if scored else None, max_rows=10)
    metrics.update(pairs)
    expected = metrics.compute()
    metrics.reset()
    metrics.update(take(pairs, torch.randperm(60)))
    assert metrics.compute() == pytest.approx(expected)


def test_nan_embedding_is_seen() -> None:
    pairs = random_pairs(10)
    pairs.query[3] = torch.nan
    metrics = RetrievalMetrics()(pairs)
    assert math.isnan(metrics["recall@1"]) and math.isnan(metrics["ndcg@10"])
    assert all(math.isnan(value) for value in similarity_gap(pairs).values())
    assert math.isnan(space_health(pairs)["effective_rank"])


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_equals_scipy(ties: bool) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=50), generator.normal(size=50)
    x += y
    if ties:
        x, y = x.round(), y.round()
        assert len(set(x)) < 20
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)


def test_spearman_degenerate() -> None:
    assert spearman([1.0, 1.0, 1.0], [0.1, 0.2, 0.3]) == 0
    assert math.isnan(spearman([0.5], [0.5])) and math.isnan(spearman([], []))
    assert math.isnan(spearman([0.1, math.nan], [0.1, 0.2]))
    with pytest.raises(ValueError, match="equally long"):
        spearman([0.1, 0.2], [0.1])


@pytest.mark.parametrize("min_score", [None, 0.5])
def test_similarity_gap_equals_naive_loop(min_score: float | None) -> None:
    pairs = with_duplicates(random_pairs(60, scored=True))
    keys = list(zip(pairs.query_key.tolist(), pairs.document_key.tolist(), strict=True))
    listed = set(keys)
    taken = [min_score is None or score >= min_score for score in pairs.score]
    match = dict.fromkeys(itertools.compress(keys, taken))
    query = dict(zip(pairs.query_key.tolist(), pairs.query.double(), strict=True))
    document = dict(zip(pairs.document_key.tolist(), pairs.document.double(), strict=True))
    inside = np.array([float(query[q] @ document[d]) for q, d in match])
    outside = np.array(
        [float(query[q] @ document[d]) for q in query for d in document if (q, d) not in listed]
    )
    assert len(outside) > len(inside) > 10
    gap = inside.mean() - outside.mean()
    effect = gap / math.sqrt((inside.var() + outside.var()) / 2)
    got = similarity_gap(pairs, min_score)
    assert got == pytest.approx({"gap": gap, "gap_effect": effect})


def test_similarity_gap_degenerate() -> None:
    got = similarity_gap(collapsed())
    assert got == pytest.approx({"gap": 0, "gap_effect": 0}, abs=1e-6)
    assert math.isnan(similarity_gap(random_pairs(1))["gap"])
    assert math.isnan(similarity_gap(random_pairs(0))["gap"])


def test_similarity_samples() -> None:
    pairs = with_duplicates(random_pairs(60))
    matching, non_matching = similarity_samples(pairs, limit=5000)
    assert len(matching) == len(torch.unique(torch.stack(pairs[2:4]), dim=1).T)
    assert 0 < len(non_matching) <= 5000
    gap = similarity_gap(pairs)["gap"]
    assert matching.mean() - non_matching.mean() == pytest.approx(gap, abs=0.03)
    assert [len(side) for side in similarity_samples(random_pairs(0))] == [0, 0]
    assert [len(side) for side in similarity_samples(random_pairs(1))] == [1, 0]


def test_space_by_hand() -> None:
    square = on_circle(0, 90, 180, 270).double()
    assert alignment(torch.tensor([1.0, 0.0])) == 1
    expected = math.log((4 * math.exp(-2 * 2) + 2 * math.exp(-2 * 4)) / 6)
    assert uniformity(square) == pytest.approx(expected, abs=1e-6)
    pairwise = torch.pdist(random_pairs(20).query.double())
    expected = pairwise.square().mul(-2).exp().mean().log().item()
    assert uniformity(random_pairs(20).query.double()) == pytest.approx(expected, abs=1e-6)
    assert effective_rank(square) == pytest.approx(2)
    assert effective_rank(torch.eye(7).double()) == pytest.approx(7)
    assert modality_gap(square[:1], square[2:3]) == pytest.approx(2)


def test_effective_rank_equals_singular_values() -> None:
    matrix = torch.randn(30, 12, dtype=torch.float64) * torch.arange(1, 13)
    singular = torch.linalg.svdvals(matrix)
    share = singular / singular.sum()
    expected = (-(share * share.log()).sum()).exp().item()
    assert 2 < expected < 12
    assert effective_rank(matrix) == pytest.approx(expected)
    assert effective_rank(matrix.T) == pytest.approx(expected)


def test_space_of_collapse() -> None:
    health = space_health(collapsed())
    assert tuple(health) == SPACE_KEYS
    assert health == pytest.approx(
        {"alignment": 0, "uniformity": 0, "effective_rank": 1, "modality_gap": 0}, abs=1e-5
    )


def test_sample_is_distinct_and_deterministic() -> None:
    pairs = with_duplicates(random_pairs(60))
    sample = sample_distinct(pairs.document, pairs.document_key, 9)
    order = torch.randperm(60)
    again = sample_distinct(pairs.document[order], pairs.document_key[order], 9)
    assert torch.equal(sample, again)
    assert len(sample.unique(dim=0)) == 9


def test_distinct_takes_first_rows() -> None:
    first, inverse = distinct(torch.tensor([7, 3, 7, -1, 3]))
    assert first.tolist() == [3, 1, 0]
    assert inverse.tolist() == [2, 1, 2, 0, 1]


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_task_metrics_degenerate(rows: int, scored: bool) -> None:
    metrics = TaskMetrics(scored)
    metrics.update(random_pairs(rows, scored=scored))
    values = metrics.compute()
    assert values["pool"] == rows == values["queries"]
    assert math.isnan(values["mrr"]) == (rows == 0)
    assert ("spearman" in values) == scored
    assert set(SPACE_KEYS) < set(values)


def test_task_metrics_over_batches() -> None:
    pairs = with_duplicates(random_pairs(60, scored=True))
    metrics = TaskMetrics(scored=True, ks=(1, 3), min_score=0.3)
    for rows in torch.arange(60).split(13):
        metrics.update(take(pairs, rows))
    metrics.update(take(pairs, torch.arange(0)))
    values = metrics.compute()
    expected = RetrievalMetrics((1, 3), 0.3)(pairs)
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    cosines = pair_cosines(pairs).numpy()
    assert values["spearman"] == pytest.approx(spearmanr(cosines, pairs.score).statistic)
    assert metrics.chance() == pytest.approx(RetrievalMetrics((1, 3), 0.3).chance(pairs))
    metrics.reset()
    assert len(metrics.pairs().query) == 0


def test_ablated_views_do_not_count_in_the_score() -> None:
    whole, spoilt = random_pairs(40, noise=0.3), random_pairs(40, noise=3.0, seed=1)
    views = ViewMetrics({"a": TaskMetrics(scored=False), "b": TaskMetrics(scored=False)})
    views.update(("a", "none"), whole)
    views.update(("a", "shuffled_pictures"), spoilt)
    views.update(("b", "none"), spoilt)
    every = [("a", "none"), ("a", "shuffled_pictures"), ("b", "none")]
    scalars = views.scalars("val", every)
    first, second = scalars["val/a/recall@1"], scalars["val/b/recall@1"]
    assert scalars["val/a/shuffled_pictures/recall@1"] == second < 0.5 < first
    assert scalars["val/score"] == pytest.approx((first + second) / 2)


def test_task_metrics_takes_half_precision() -> None:
    pairs = random_pairs(20)
    metrics = TaskMetrics(scored=False)
    metrics.update(pairs._replace(query=pairs.query.bfloat16()))
    assert metrics.pairs().query.dtype == torch.float32


def computed_and_kept(metrics: TaskMetrics) -> dict[str, float]:
    """All metrics, and what callbacks see of the rows that they were computed from."""
    values = metrics.compute()
    kept = metrics.computed_from
    return {
        **values,
        "kept rows": float(len(kept.query_key)),
        "kept cosines": pair_cosines(kept).sum().item(),
    }


def _gather_worker(rank: int, path: str, empty: str, queue: mp.Queue) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(path, 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    pairs = with_duplicates(random_pairs(60, scored=True))
    metrics = TaskMetrics(scored=True, min_score=0.4)
    if empty == "no":
        metrics.update(take(pairs, torch.arange(rank * 23, 23 + rank * 37)))
    elif rank == 0:
        metrics.update(pairs)
    elif empty == "zero rows":
        metrics.update(take(pairs, torch.arange(0)))
    queue.put((rank, computed_and_kept(metrics)))
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("empty", ["no", "zero rows", "no update"])
def test_task_metrics_over_two_processes(empty: str) -> None:
    whole = TaskMetrics(scored=True, min_score=0.4)
    whole.update(with_duplicates(random_pairs(60, scored=True)))
    context = mp.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        queue = context.Queue()
        arguments = (os.path.join(folder, "store"), empty, queue)
        workers = [context.Process(target=_gather_worker, args=(r, *arguments)) for r in (0, 1)]
        for worker in workers:
            worker.start()
        results = dict(queue.get(timeout=60) for _ in workers)
        for worker in workers:
            worker.join()
    expected = computed_and_kept(whole)
    assert expected["queries"] > 5 and expected["kept rows"] == 60
    assert results[0] == pytest.approx(expected)
    assert results[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RetrievalMetrics(ks=()), "ks="),
        (lambda: RetrievalMetrics(ks=(0, 1)), "ks="),
        (lambda: RetrievalMetrics(min_score=1.5), "min_score=1.5"),
        (lambda: retrieval_ranks(random_pairs(3), block=0), "block=0"),
        (lambda: matching_rows(random_pairs(3), 0.5), "relevant_from=0.5"),
        (lambda: TaskMetrics(scored=False, min_score=0.5), "scored=True"),
        (lambda: TaskMetrics(scored=True, max_rows=1), "max_rows=1"),
        (lambda: TaskMetrics(scored=True).update(random_pairs(3)), "no score"),
        (lambda: paired_bootstrap([], []), "not empty"),
        (lambda: paired_bootstrap([1.0], [1.0, 2.0]), "equally long"),
        (lambda: paired_bootstrap([1.0], [1.0], samples=0), "samples=0"),
    ],
)
def test_wrong_values_are_named(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_bootstrap_covers_a_known_difference() -> None:
    generator = np.random.default_rng(0)
    b = generator.normal(size=400)
    a = b + 0.1 + 0.5 * generator.normal(size=400)
    difference, low, high = paired_bootstrap(a, b)
    assert difference == pytest.approx((a - b).mean())
    half = 1.96 * (a - b).std() / math.sqrt(400)
    _, *ends = paired_bootstrap(a, b, samples=20_000)
    assert ends == pytest.approx([difference - half, difference + half], abs=0.001)
    assert [low, high] == pytest.approx(ends, abs=0.002)
    assert paired_bootstrap(a, b) == (difference, low, high)
    assert paired_bootstrap(b, a).difference == -difference
    assert paired_bootstrap(a, a) == (0, 0, 0)


def test_the_interval_of_spearmans_is_scipys() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(200)
    good, bad = (scores + spread * generator.normal(size=200) for spread in (0.5, 1.0))

    def spearmans(ours: Any, theirs: Any, target: Any) -> Any:
        return spearmanr(ours, target).statistic - spearmanr(theirs, target).statistic

    expected = bootstrap(
        (good, bad, scores),
        spearmans,
        paired=True,
        method="percentile",
        vectorized=False,
        n_resamples=2000,
        random_state=1,
    ).confidence_interval
    interval = paired_bootstrap_spearman(good, bad, scores)
    assert [interval.low, interval.high] == pytest.approx(list(expected), abs=0.01)


def test_bootstrap_spearman() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(200)
    good = scores + 0.2 * generator.normal(size=200)
    bad = scores + 2.0 * generator.normal(size=200)
    interval = paired_bootstrap_spearman(good, bad, scores, samples=200)
    assert interval.difference == spearman(good, scores) - spearman(bad, scores)
    assert 0 < interval.low < interval.difference < interval.high
    assert paired_bootstrap_spearman(good, good, scores, samples=10) == (0, 0, 0)
