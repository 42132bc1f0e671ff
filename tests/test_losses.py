"""Every loss against a slow oracle, degenerate batches and gradients: one table, one row each."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from polyqwen.losses.cosent import CoSENTLoss
from polyqwen.losses.cosine import CosineLoss
from polyqwen.losses.grounded import GroundedLoss
from polyqwen.losses.info_nce import InfoNCELoss
from polyqwen.losses.instruction import InstructionLoss
from polyqwen.losses.rank_hinge import PairwiseRankLoss
from polyqwen.losses.score_mse import ScoreMSELoss
from polyqwen.losses.scored_text import ScoredTextLoss
from polyqwen.losses.triplet import TripletLoss
from polyqwen.losses.types import Pairs

# --- oracles: plain loops over Python floats -----------------------------------------------------


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def candidates(p: Pairs) -> list[tuple[int, Tensor, int]]:
    """(key, embedding, row it was given for or -1) of all documents, then all hard negatives."""
    found = [(int(k), d, -1) for k, d in zip(p.document_key, p.document, strict=True)]
    if p.negative is not None:
        rows = zip(p.negative_key, p.negative, p.negative_row, strict=True)
        found += [(int(k), d, int(r)) for k, d, r in rows]
    return found


def negatives(p: Pairs, i: int) -> list[int]:
    query = int(p.query_key[i])
    positives = {int(d) for q, d in zip(p.query_key, p.document_key, strict=True) if q == query}
    return [c for c, (k, _, _) in enumerate(candidates(p)) if k not in positives and k != query]


def mean(values: list[float], weight: list[float] | None = None) -> float:
    weight = weight or [1.0] * len(values)
    total = sum(w * v for w, v in zip(weight, values, strict=True))
    return total / sum(weight) if sum(weight) else 0.0


def info_nce(p: Pairs, tau: float, weight: list[float] | None = None) -> float:
    found, values = candidates(p), []
    for i, query in enumerate(p.query):
        logits = [dot(query, found[c][1]) / tau for c in [i, *negatives(p, i)]]
        values.append(math.log(sum(map(math.exp, logits))) - logits[0])
    return mean(values, weight)


def backward_info_nce(p: Pairs, tau: float) -> float:
    """Document → query: query j competes for document i where that is a negative of row j."""
    values = []
    for i, document in enumerate(p.document):
        rivals = [j for j in range(len(p.query)) if i in negatives(p, j)]
        logits = [dot(p.query[j], document) / tau for j in [i, *rivals]]
        values.append(math.log(sum(map(math.exp, logits))) - logits[0])
    return mean(values)


def similarity(p: Pairs) -> list[float]:
    return [(dot(q, d) + 1) / 2 for q, d in zip(p.query, p.document, strict=True)]


def score_mse(p: Pairs) -> float:
    return mean([(float(s) - x) ** 2 for s, x in zip(p.score, similarity(p), strict=True)])


def cosine(p: Pairs) -> float:
    return mean([2 - 2 * x for x in similarity(p)])


def ordered(p: Pairs) -> list[tuple[int, int]]:
    rows = range(len(p.query))
    return [(i, j) for i in rows for j in rows if p.score[i] > p.score[j]]


def rank(p: Pairs, margin: float) -> float:
    s = similarity(p)
    return mean([max(0.0, margin - (s[i] - s[j])) for i, j in ordered(p)])


def cosent(p: Pairs, tau: float) -> float:
    s = similarity(p)
    return math.log(1 + sum(math.exp(2 * (s[j] - s[i]) / tau) for i, j in ordered(p)))


def triplet(p: Pairs, margin: float, given_only: bool = False) -> float:
    found, values = candidates(p), []
    for i, query in enumerate(p.query):
        near = [c for c in negatives(p, i) if found[c][2] == i or not given_only]
        if near:
            distance = min(1 - dot(query, found[c][1]) for c in near)
            values.append(max(0.0, 1 - dot(query, p.document[i]) - distance + margin))
    return mean(values)


def scored_text(p: Pairs, weight: list[float] | None = None) -> float:
    return info_nce(p, 0.1, weight) + 2 * score_mse(p) + 3 * rank(p, 0.05)


# --- the table: a new loss is a new row ----------------------------------------------------------


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    oracle: Callable[[Pairs], float]
    scored: bool = False


CASES = {
    "info_nce": Case(lambda: InfoNCELoss(0.1), lambda p: info_nce(p, 0.1)),
    "info_nce_symmetric": Case(
        lambda: InfoNCELoss(0.1, symmetric=True),
        lambda p: (info_nce(p, 0.1) + backward_info_nce(p, 0.1)) / 2,
    ),
    "score_mse": Case(ScoreMSELoss, score_mse, scored=True),
    "cosine": Case(CosineLoss, cosine),
    "rank": Case(PairwiseRankLoss, lambda p: rank(p, 0.05), scored=True),
    "cosent": Case(CoSENTLoss, lambda p: cosent(p, 0.05), scored=True),
    "triplet": Case(TripletLoss, lambda p: triplet(p, 0.2)),
    "triplet_given": Case(
        lambda: TripletLoss(0.3, given_only=True), lambda p: triplet(p, 0.3, given_only=True)
    ),
    "scored_text": Case(lambda: ScoredTextLoss(0.1, 2.0, 3.0), scored_text, scored=True),
    "scored_text_threshold": Case(
        lambda: ScoredTextLoss(0.1, 2.0, 3.0, score_gate="threshold", score_threshold=0.5),
        lambda p: scored_text(p, [float(s >= 0.5) for s in p.score]),
        scored=True,
    ),
    "scored_text_weight": Case(
        lambda: ScoredTextLoss(0.1, 2.0, 3.0, score_gate="weight"),
        lambda p: scored_text(p, p.score.tolist()),
        scored=True,
    ),
    "grounded": Case(
        lambda: GroundedLoss(0.1, 1.5, 0.3), lambda p: info_nce(p, 0.1) + 1.5 * triplet(p, 0.3)
    ),
    "instruction": Case(lambda: InstructionLoss(0.1), lambda p: info_nce(p, 0.1) + cosine(p)),
}
every_loss = pytest.mark.parametrize("name", CASES)


def random_pairs(rows: int, extra: int, seed: int, contents: int | None = None) -> Pairs:
    """Contents drawn from a pool, so with a small one (`contents`) queries and documents repeat."""
    generator = torch.Generator().manual_seed(seed)
    total = 2 * rows + extra
    pool = torch.randn(contents or total, 4, generator=generator, dtype=torch.float64)
    pool = nn.functional.normalize(pool, dim=1)
    if contents is None:
        key = torch.randperm(total, generator=generator)
    else:
        key = torch.randint(contents, (total,), generator=generator)
    query, document, negative = key.split([rows, rows, extra])
    # Keys are hashes: large, of either sign, in no order.
    hashed = torch.randint(-(2**62), 2**62, (len(pool),), generator=generator)
    return Pairs(
        query=pool[query],
        document=pool[document],
        query_key=hashed[query],
        document_key=hashed[document],
        score=torch.randint(5, (rows,), generator=generator) / 4.0,
        negative=pool[negative] if extra else None,
        negative_key=hashed[negative] if extra else None,
        negative_row=torch.randint(rows, (extra,), generator=generator) if extra else None,
    )


def with_graph(p: Pairs, dtype: torch.dtype | None = None) -> Pairs:
    leaf = {
        field: getattr(p, field).detach().clone().to(dtype).requires_grad_()
        for field in ("query", "document", "negative")
        if getattr(p, field) is not None
    }
    return p._replace(**leaf)


def leaves(p: Pairs) -> list[Tensor]:
    return [x for x in (p.query, p.document, p.negative) if x is not None]


@every_loss
@pytest.mark.parametrize("contents", [None, 9, 4], ids=["distinct", "repeats", "many_repeats"])
@pytest.mark.parametrize(("rows", "extra"), [(2, 0), (3, 4), (7, 0), (6, 5)])
def test_equals_the_naive_loop(name: str, rows: int, extra: int, contents: int | None) -> None:
    loss, oracle = CASES[name].build(), CASES[name].oracle
    expected = []
    for seed in range(3):
        p = random_pairs(rows, extra, seed, contents)
        expected.append(oracle(p))
        assert loss(p).total.item() == pytest.approx(expected[-1], abs=1e-6)
    if rows > 3 and not (name == "triplet_given" and extra == 0):
        assert max(expected) > 1e-3  # the comparison is not between zeros


@every_loss
def test_order_of_rows_does_not_matter(name: str) -> None:
    loss, p = CASES[name].build(), random_pairs(7, 5, seed=1, contents=9)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    given = [f for f in Pairs._fields if not f.startswith("negative") and f != "label"]
    rows = {f: getattr(p, f)[order] for f in given}
    moved = p._replace(**rows, negative_row=order.argsort()[p.negative_row])
    before, after = loss(p), loss(moved)
    torch.testing.assert_close(after.total, before.total)
    torch.testing.assert_close(after.chance, before.chance)
    assert before.total > 1e-3


def degenerate() -> dict[str, Pairs]:
    p = random_pairs(4, 3, seed=0)
    none = torch.zeros(0, dtype=torch.int64)
    empty = Pairs(p.query[:0], p.document[:0], none, none, p.score[:0])
    one = Pairs(*(x[:1] for x in p[:5]))
    given = {f: getattr(p, f) for f in ("negative", "negative_key", "negative_row")}
    same = torch.zeros(4, dtype=torch.int64)
    return {
        "no_rows": empty,
        "no_rows_but_negatives": empty._replace(**given),
        "one_row": one,
        "one_row_no_negatives": one._replace(**{f: x[:0] for f, x in given.items()}),
        "one_row_negatives": one._replace(**given | {"negative_row": same[:3]}),
        "same_document": p._replace(
            document=p.document[:1].repeat(4, 1), document_key=same, negative_key=same[:3]
        ),
        "same_query": p._replace(query=p.query[:1].repeat(4, 1), query_key=same),
        "same_embedding": p._replace(
            query=p.query[:1].repeat(4, 1),
            document=p.query[:1].repeat(4, 1),
            negative=p.query[:1].repeat(3, 1),
        ),
        "same_scores": p._replace(score=torch.full((4,), 0.5)),
        "zero_scores": p._replace(score=torch.zeros(4)),
    }


@every_loss
@pytest.mark.parametrize("batch", degenerate())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:InfoNCELoss")
def test_degenerate_batches_are_finite(name: str, batch: str, dtype: torch.dtype) -> None:
    p = with_graph(degenerate()[batch], dtype)
    out = CASES[name].build()(p)
    out.total.backward()
    assert out.total.dtype == torch.float32 and out.total.shape == out.chance.shape == ()
    assert all(x.isfinite() for x in (out.total, out.chance, *out.components.values()))
    assert p.query.grad is not None and p.document.grad is not None
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves(p))
    if batch.startswith("no_rows"):
        assert out.total == 0


@every_loss
def test_gradient(name: str) -> None:
    loss, p = CASES[name].build(), with_graph(random_pairs(5, 4, seed=2), torch.float64)

    def total(query: Tensor, document: Tensor, negative: Tensor) -> Tensor:
        return loss(p._replace(query=query, document=document, negative=negative)).total

    assert torch.autograd.gradcheck(total, leaves(p))
    total(*leaves(p)).backward()
    assert p.query.grad.abs().max() > 1e-3


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_and_half_embeddings_keep_float32(name: str, dtype: torch.dtype) -> None:
    loss, mixed = CASES[name].build(), with_graph(random_pairs(6, 4, seed=3), dtype)
    plain = with_graph(mixed, torch.float32)
    expected = loss(plain).total
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (plain.query @ plain.document.T).dtype == torch.bfloat16  # autocast is in force
        total = loss(mixed).total
    total.backward()
    assert torch.equal(total, expected)
    tolerance = 0.0 if dtype == torch.float32 else 0.02  # bf16 leaves hold bf16 gradients
    torch.testing.assert_close(
        mixed.query.grad.float(), plain.query.grad, rtol=tolerance, atol=tolerance
    )


@every_loss
def test_contract(name: str) -> None:
    loss, p = CASES[name].build(), with_graph(random_pairs(5, 4, seed=4), torch.float32)
    out = loss(p)
    assert not list(loss.parameters()) and not loss.state_dict()
    assert out.total.requires_grad and out.components
    assert not any(x.requires_grad for x in (out.chance, *out.components.values()))
    assert (out.chance > 0) == ("info_nce" in out.components)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.scored])
def test_missing_scores_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="field `score`"):
        CASES[name].build()(random_pairs(3, 0, seed=0)._replace(score=None))
