"""Every loss against a slow oracle, degenerate batches and gradients; a new loss is a row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyqwen.losses.negatives import NEGATIVES_FROM, NegativesFrom
from polyqwen.losses.types import Pairs
from tests.losses.loss_cases import CASES, degenerate, leaves, random_pairs, with_graph

every_loss = pytest.mark.parametrize("name", CASES)
CONTRASTIVE = {name for name, case in CASES.items() if case.contrastive}
# their other terms, or the choice of a partner, look at rows without negatives too
WITH_OTHER_TERMS = {"instruction", "shuffled_nce"} | {n for n in CASES if "scored_text" in n}
ROWS = [f for f in Pairs._fields if not f.startswith("negative") and f != "label"]
every_source = pytest.mark.parametrize("source", NEGATIVES_FROM)


@every_loss
@every_source
@pytest.mark.parametrize("contents", [None, 9, 4], ids=["distinct", "repeats", "many_repeats"])
@pytest.mark.parametrize(("rows", "extra"), [(2, 0), (3, 4), (7, 0), (6, 5)])
def test_equals_the_naive_loop(
    name: str, source: NegativesFrom, rows: int, extra: int, contents: int | None
) -> None:
    loss, oracle = CASES[name].build(), CASES[name].oracle
    expected = []
    for seed in range(3):
        p = random_pairs(rows, extra, seed, contents)._replace(negatives_from=source)
        expected.append(oracle(p))
        assert loss(p).total.item() == pytest.approx(expected[-1], abs=1e-6)
    given = extra > 0 and source != "batch"
    needs_given = name == "triplet_given" or (source == "given" and name in CONTRASTIVE)
    if rows > 3 and (given or not needs_given):
        assert max(map(abs, expected)) > 1e-3  # the comparison is not between zeros


@every_loss
@pytest.mark.parametrize("contents", [None, 9], ids=["distinct", "repeats"])
def test_negatives_of_the_batch_alone_are_those_of_rows_that_were_given_none(
    name: str, contents: int | None
) -> None:
    loss, p = CASES[name].build(), random_pairs(6, 5, seed=5, contents=contents)
    none = p._replace(negative=None, negative_key=None, negative_row=None)
    alone = loss(p._replace(negatives_from="batch"))
    for kept in (loss(none), loss(none._replace(negatives_from="batch"))):
        torch.testing.assert_close(alone.total, kept.total)
        torch.testing.assert_close(alone.chance, kept.chance)
    if name in CONTRASTIVE:
        assert abs(alone.total - loss(p).total) > 1e-4


@pytest.mark.parametrize("name", sorted(CONTRASTIVE - WITH_OTHER_TERMS))
def test_rows_that_were_given_no_negative_have_no_part_in_given_ones(name: str) -> None:
    loss, p = CASES[name].build(), random_pairs(5, 6, seed=6)
    p = p._replace(negatives_from="given", negative_row=torch.tensor([0, 0, 1, 3, 3, 3]))
    whole = loss(p)
    for bare in (2, 4):
        rows = torch.tensor([row for row in range(5) if row != bare])
        left = {field: getattr(p, field)[rows] for field in ROWS}
        rest = loss(p._replace(**left, negative_row=p.negative_row - (p.negative_row > bare).int()))
        torch.testing.assert_close(rest.total, whole.total)
        torch.testing.assert_close(rest.chance, whole.chance)
    graph = with_graph(p._replace(negative_row=torch.full((6,), -1)))
    nothing = loss(graph)
    nothing.total.backward()
    assert nothing.total == nothing.chance == 0 < abs(whole.total)
    assert not any(x.grad.any() for x in leaves(graph))


@every_loss
def test_order_of_rows_does_not_matter(name: str) -> None:
    loss, p = CASES[name].build(), random_pairs(7, 5, seed=1, contents=9)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    rows = {field: getattr(p, field)[order] for field in ROWS}
    moved = p._replace(**rows, negative_row=order.argsort()[p.negative_row])
    before, after = loss(p), loss(moved)
    torch.testing.assert_close(after.total, before.total)
    torch.testing.assert_close(after.chance, before.chance)
    assert before.total.abs() > 1e-3


@every_loss
@every_source
@pytest.mark.parametrize("batch", degenerate())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:InfoNCELoss")
def test_degenerate_batches_are_finite(
    name: str, source: NegativesFrom, batch: str, dtype: torch.dtype
) -> None:
    p = with_graph(degenerate()[batch]._replace(negatives_from=source), dtype)
    out = CASES[name].build()(p)
    out.total.backward()
    assert out.total.dtype == torch.float32 and out.total.shape == out.chance.shape == ()
    assert all(x.isfinite() for x in (out.total, out.chance, *out.components.values()))
    assert p.query.grad is not None and p.document.grad is not None
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves(p))
    if batch.startswith("no_rows"):
        assert out.total == 0


@every_loss
@every_source
def test_gradient(name: str, source: NegativesFrom) -> None:
    loss, p = CASES[name].build(), with_graph(random_pairs(5, 4, seed=2), torch.float64)
    p = p._replace(negatives_from=source)

    def total(query: Tensor, document: Tensor, negative: Tensor) -> Tensor:
        return loss(p._replace(query=query, document=document, negative=negative)).total

    assert torch.autograd.gradcheck(total, leaves(p))
    total(*leaves(p)).backward()
    if source == "both":
        assert p.query.grad.abs().max() > 1e-3 and p.document.grad.abs().max() > 1e-3


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
    contrastive = [part for part in out.components if part.partition("@")[0].endswith("_nce")]
    assert (out.chance > 0) == bool(contrastive)


@given(st.sampled_from(sorted(CASES)), st.integers(0, 2**31), st.sampled_from([None, 3, 6]))
@settings(max_examples=300, deadline=None)
def test_no_value_is_below_the_lower_bound(name: str, seed: int, contents: int | None) -> None:
    loss = CASES[name].build()
    total = loss(random_pairs(4, 2, seed, contents)).total
    assert total >= loss.lower_bound - 1e-9


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.taught])
def test_missing_vectors_of_a_teacher_are_an_error(name: str) -> None:
    bare = random_pairs(3, 0, seed=0)._replace(teacher_query=None, teacher_document=None)
    with pytest.raises(ValueError, match="fields `teacher_query`, `teacher_document`"):
        CASES[name].build()(bare)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.scored])
def test_missing_scores_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="field `score`"):
        CASES[name].build()(random_pairs(3, 0, seed=0)._replace(score=None))
