"""Controls mislead as they claim: the same wrong aim every time, and real harm when followed."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.losses.controls.collapse import CollapseLoss
from polyqwen.losses.controls.inverted_score import InvertedScoreLoss
from polyqwen.losses.controls.shuffled_nce import ShuffledNCELoss, wrong_partner
from polyqwen.losses.controls.style import StyleLoss
from polyqwen.losses.cosent import CoSENTLoss
from polyqwen.losses.info_nce import InfoNCELoss
from polyqwen.losses.score_mse import ScoreMSELoss
from polyqwen.losses.types import Pairs
from tests.losses.loss_cases import random_pairs
from tests.weighting.plane import pairs, seeded, value

keys = st.integers(-(2**63), 2**63 - 1)


# --- shuffled pairs -------------------------------------------------------------------------------


def keyed(key: list[int]) -> Pairs:
    """Distinct documents with these keys; queries with others."""
    rows = len(key)
    points = F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    other = [k for k in range(2 * rows) if k not in key][:rows]
    return Pairs(points, points, torch.tensor(other), torch.tensor(key, dtype=torch.int64))


@given(st.lists(keys, min_size=2, max_size=12, unique=True))
@settings(max_examples=100, deadline=None)
def test_partners_form_one_cycle(key: list[int]) -> None:
    partner, found = wrong_partner(keyed(key))
    assert found.all()
    seen, at = [], 0
    for _ in key:
        seen.append(at)
        at = int(partner[at])
    assert at == 0 and sorted(seen) == list(range(len(key)))
    ranked = sorted(range(len(key)), key=lambda i: key[i])
    assert all(int(partner[i]) == j for i, j in zip(ranked, ranked[1:] + ranked[:1], strict=True))


@given(st.lists(keys, min_size=3, max_size=12, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_partners_stay_in_another_order_and_in_a_smaller_batch(key: list[int], random) -> None:
    def partners(own: list[int]) -> dict[int, int]:
        partner, _ = wrong_partner(keyed(own))
        return {k: own[j] for k, j in zip(own, partner.tolist(), strict=True)}

    whole = partners(key)
    mixed = random.sample(key, len(key))
    assert partners(mixed) == whole
    left = mixed[1:]
    kept = {k: p for k, p in whole.items() if k in left and p in left}
    assert kept and kept.items() <= partners(left).items()


def test_partners_are_never_a_positive() -> None:
    for seed in range(20):
        p = random_pairs(8, 0, seed, contents=9)
        partner, found = wrong_partner(p)
        positives = set(zip(p.query_key.tolist(), p.document_key.tolist(), strict=True))
        wrong = set(
            zip(p.query_key[found].tolist(), p.document_key[partner[found]].tolist(), strict=True)
        )
        assert wrong and not wrong & positives
        assert all(query != document for query, document in wrong)


def test_shuffled_pairs_by_hand() -> None:
    p = pairs([0, 90], [0, 90])  # each query on its own document; the wrong one is at cosine 0
    assert value(ShuffledNCELoss(0.5), p) == pytest.approx(math.log(1 + math.exp(2)))
    alone = pairs([0, 90], [50, 50])
    alone.document_key[1] = alone.document_key[0]
    alone.query.requires_grad_()
    total = ShuffledNCELoss()(alone).total
    total.backward()
    assert total == 0 and torch.equal(alone.query.grad, torch.zeros_like(alone.query))


# --- the others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [ScoreMSELoss(), CoSENTLoss()])
def test_inverted_scores(inner: nn.Module) -> None:
    loss, p = InvertedScoreLoss(inner), seeded(3)
    assert value(loss, p) == value(inner, p._replace(score=1 - p.score)) != value(inner, p)
    assert value(loss, p._replace(score=1 - p.score)) == pytest.approx(value(inner, p))
    assert loss.lower_bound == inner.lower_bound == 0
    assert {f"inverted_{name}" for name in inner(p).components} == set(loss(p).components)


def test_temperature_reaches_the_inner_loss() -> None:
    for loss, inner in (
        (InvertedScoreLoss(CoSENTLoss()), "loss"),
        (ShuffledNCELoss(), "info_nce"),
    ):
        loss.temperature = 0.5
        assert loss.temperature == getattr(loss, inner).temperature == 0.5
    assert not hasattr(InvertedScoreLoss(ScoreMSELoss()), "temperature")


def test_style_by_hand() -> None:
    p = pairs([0, 90], [0, 90])
    p = p._replace(query_key=torch.tensor([0, 1]), document_key=torch.tensor([2, 3]))
    # By key: row 0 and row 1 are a style each. Everyone has one style mate, at cosine 1, and two
    # others, at cosine 0.
    by_key = math.log(math.exp(2) + 2) - 2
    # By side: the style mate is the other row, at cosine 0, like one of the two others.
    by_side = math.log(math.exp(2) + 2)
    assert value(StyleLoss("key", 2, temperature=0.5), p) == pytest.approx(by_key)
    assert value(StyleLoss("side", temperature=0.5), p) == pytest.approx(by_side)


def test_collapse_by_hand() -> None:
    assert value(CollapseLoss(), pairs([0, 90], [180, 270])) == pytest.approx(1)
    assert value(CollapseLoss(), pairs([40, 40], [40, 40])) == pytest.approx(0)
    assert value(CollapseLoss(), pairs([0], [90])) == pytest.approx(0.5)


# --- harm -----------------------------------------------------------------------------------------


def retrieval(p: Pairs) -> float:
    """Share of queries whose nearest document is their own."""
    return float(
        ((p.query @ p.document.T).argmax(dim=1) == torch.arange(len(p.query))).float().mean()
    )


def order(p: Pairs) -> float:
    """Correlation of cosines and scores."""
    cosine = (p.query * p.document).sum(dim=1)
    return float(torch.corrcoef(torch.stack([cosine, p.score.double()]))[0, 1])


def gap(p: Pairs) -> float:
    """Minus the distance of the two sides' centres."""
    return -float((p.query.mean(dim=0) - p.document.mean(dim=0)).norm())


def follow(loss: nn.Module, p: Pairs, steps: int = 200) -> Pairs:
    """The embeddings after gradient descent on the sphere."""
    free = [x.clone().requires_grad_() for x in (p.query, p.document)]
    optimizer = torch.optim.SGD(free, lr=0.5)

    def embedded() -> Pairs:
        query, document = (F.normalize(x, dim=1) for x in free)
        return p._replace(query=query, document=document)

    for _ in range(steps):
        optimizer.zero_grad()
        loss(embedded()).total.backward()
        optimizer.step()
    return Pairs(*(x.detach() if isinstance(x, Tensor) else x for x in embedded()))


@pytest.mark.parametrize(
    ("wrong", "right", "quality"),
    [
        (ShuffledNCELoss(0.2), InfoNCELoss(0.2), retrieval),
        (InvertedScoreLoss(ScoreMSELoss()), ScoreMSELoss(), order),
        (InvertedScoreLoss(CoSENTLoss()), CoSENTLoss(), order),
        (StyleLoss("key"), InfoNCELoss(0.2), retrieval),
        (StyleLoss("side"), InfoNCELoss(0.2), gap),
        (CollapseLoss(), InfoNCELoss(0.2), retrieval),
    ],
    ids=["shuffled", "inverted_mse", "inverted_cosent", "style_key", "style_side", "collapse"],
)
def test_following_a_control_does_harm(
    wrong: nn.Module, right: nn.Module, quality: Callable[[Pairs], float]
) -> None:
    noise = random_pairs(16, 0, seed=5)
    start = noise._replace(document=F.normalize(noise.query + 0.5 * noise.document, dim=1))
    before = quality(start)
    assert quality(follow(wrong, start)) < before - 0.2
    assert quality(follow(right, start)) > before + 0.05


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ShuffledNCELoss(0.0), "temperature is 0.0"),
        (lambda: StyleLoss("colour"), "style is 'colour': choose one of"),
        (lambda: StyleLoss(num_classes=1), "num_classes is 1"),
        (lambda: StyleLoss(temperature=-1.0), "temperature is -1.0"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
