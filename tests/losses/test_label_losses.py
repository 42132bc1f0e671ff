"""Losses of labelled texts: values by hand, slow oracles, degenerate batches, gradients."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from polyqwen.losses.classification import ClassificationLoss
from polyqwen.losses.contrast_labels import LabelContrastLoss
from polyqwen.losses.types import Pairs
from polyqwen.losses.uniformity import UniformityLoss

CLASSES = ("a", "b", "c")
SIZE = 4


def texts(label: list[int], seed: int = 0, key: list[int] | None = None) -> Pairs:
    """Unit vectors with classes; equal keys have equal vectors."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.tensor(key or list(range(len(label))), dtype=torch.int64)
    pool = torch.randn(max([*keys.tolist(), 0]) + 1, SIZE, generator=generator, dtype=torch.float64)
    query = nn.functional.normalize(pool, dim=1)[keys]
    return Pairs(query, query, keys, keys, label=torch.tensor(label, dtype=torch.int64))


def head(loss: ClassificationLoss, e: Tensor) -> list[float]:
    scale = math.exp(loss.log_scale.item())
    rows = zip(loss.head.weight.tolist(), loss.head.bias.tolist(), strict=True)
    return [scale * (sum(w * x for w, x in zip(r, e.tolist(), strict=True)) + b) for r, b in rows]


def cross_entropy(loss: ClassificationLoss, p: Pairs, weight: tuple[float, ...]) -> float:
    total, sum_of_weights = 0.0, 0.0
    smoothing = loss.label_smoothing
    for e, label in zip(p.query, p.label.tolist(), strict=True):
        logits = head(loss, e)
        log_sum = math.log(sum(map(math.exp, logits)))
        target = [smoothing / len(logits)] * len(logits)
        target[label] += 1 - smoothing
        each = sum(t * (log_sum - z) for t, z in zip(target, logits, strict=True))
        total += weight[label] * each
        sum_of_weights += weight[label]
    return total / sum_of_weights if sum_of_weights else 0.0


def uniformity(p: Pairs, t: float = 2.0) -> float:
    """The mean of both sides, of which a label task has only one; equal contents count once."""
    sides = []
    for keys, rows in ((p.query_key, p.query), (p.document_key, p.document)):
        once = list(dict(zip(keys.tolist(), rows, strict=True)).values())
        found = [
            math.exp(-t * float((x - y).square().sum()))
            for i, x in enumerate(once)
            for y in once[:i]
        ]
        if found:
            sides.append(math.log(sum(found) / len(found)))
    return sum(sides) / len(sides) if sides else 0.0


def contrast(p: Pairs, tau: float = 0.1) -> float:
    rows = list(zip(p.query_key.tolist(), p.query, p.label.tolist(), strict=True))
    values = []
    for key, query, label in rows:
        others = [(float(query @ q) / tau, own) for k, q, own in rows if k != key]
        partners = [z for z, own in others if own == label]
        if partners:
            log_sum = math.log(sum(math.exp(z) for z, _ in others))
            values.append(sum(log_sum - z for z in partners) / len(partners))
    return sum(values) / len(values) if values else 0.0


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    oracle: Callable[[nn.Module, Pairs], float]


def classifier(**options: object) -> Callable[[], ClassificationLoss]:
    def build() -> ClassificationLoss:
        torch.manual_seed(0)
        return ClassificationLoss(CLASSES, SIZE, **options).double()  # type: ignore[arg-type]

    return build


ONES = (1.0, 1.0, 1.0)
CASES = {
    "plain": Case(classifier(), lambda m, p: cross_entropy(m, p, ONES)),
    "smoothed": Case(classifier(label_smoothing=0.2), lambda m, p: cross_entropy(m, p, ONES)),
    "weighted": Case(
        classifier(class_weights={"b": 5.0}), lambda m, p: cross_entropy(m, p, (1.0, 5.0, 1.0))
    ),
    "regularised": Case(
        classifier(uniformity_weight=0.5, contrast_weight=0.3),
        lambda m, p: cross_entropy(m, p, ONES) + 0.5 * uniformity(p) + 0.3 * contrast(p),
    ),
    "uniformity": Case(UniformityLoss, lambda m, p: uniformity(p)),
    "contrast": Case(LabelContrastLoss, lambda m, p: contrast(p)),
}
every_loss = pytest.mark.parametrize("name", CASES)


@every_loss
@pytest.mark.parametrize(
    ("label", "key"),
    [([0, 1, 2, 0, 1], None), ([0, 0, 1, 1, 2, 2, 0], [0, 0, 1, 2, 3, 3, 4]), ([1, 1], None)],
)
def test_equals_the_naive_loop(name: str, label: list[int], key: list[int] | None) -> None:
    case, p = CASES[name], texts(label, 3, key)
    loss = case.build()
    expected = case.oracle(loss, p)
    assert loss(p).total.item() == pytest.approx(expected, abs=1e-6)
    assert abs(expected) > 1e-3 or label == [1, 1]


def test_cross_entropy_by_hand() -> None:
    loss = ClassificationLoss(["no", "yes"], 2, scale=1.0)
    with torch.no_grad():
        loss.head.weight.copy_(torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]))
        loss.head.bias.zero_()
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    keys = torch.tensor([1, 2])
    out = loss(Pairs(query, query, keys, keys, label=torch.tensor([1, 0])))
    # odds of yes 3:1 in the first row, 1:1 in the second
    assert out.total.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert out.chance.item() == pytest.approx(math.log(2)) and loss.lower_bound == 0
    assert out.components["accuracy"] == 1.0  # a tie goes to the first class
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert out.components["uncertainty"].item() == pytest.approx((entropy / math.log(2) + 1) / 2)


def test_lower_bounds_hold_and_are_reached() -> None:
    loss = classifier(label_smoothing=0.2)()
    with torch.no_grad():  # logits that give the smoothed target itself
        loss.head.weight.zero_()
        target = torch.tensor([1 - 0.2 + 0.2 / 3, 0.2 / 3, 0.2 / 3]).double()
        loss.head.bias.copy_(target.log() / loss.log_scale.exp())
    assert loss(texts([0, 0])).total.item() == pytest.approx(loss.lower_bound)
    assert classifier(uniformity_weight=0.5)().lower_bound == pytest.approx(-4.0)


DEGENERATE = {
    "no_rows": texts([]),
    "one_row": texts([1]),
    "one_class": texts([2, 2, 2]),
    "one_content": texts([0, 0], key=[0, 0]),
    "no_partner": texts([0, 1, 2]),
}


@every_loss
@pytest.mark.parametrize("batch", DEGENERATE)
def test_degenerate_batches_are_finite(name: str, batch: str) -> None:
    loss, p = CASES[name].build().float(), DEGENERATE[batch]
    query = p.query.float().requires_grad_()
    out = loss(p._replace(query=query, document=query))
    out.total.backward()
    assert out.total.isfinite() and all(x.isfinite() for x in out.components.values())
    assert query.grad is not None and query.grad.isfinite().all()
    if batch == "no_rows":
        assert out.total == 0


@every_loss
def test_gradient_and_contract(name: str) -> None:
    loss, p = CASES[name].build(), texts([0, 1, 1, 2, 0], 5)
    query = p.query.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: loss(p._replace(query=q)).total, query)
    out = loss(p._replace(query=query))
    out.total.backward()
    assert query.grad is not None and query.grad.abs().max() > 1e-3
    assert all(w.grad is not None and w.grad.any() for w in loss.parameters())
    assert not any(x.requires_grad for x in (out.chance, *out.components.values()))


@every_loss
def test_autocast_keeps_float32(name: str) -> None:
    loss, p = CASES[name].build().float(), texts([0, 1, 1, 2])
    plain = loss(p._replace(query=p.query.float())).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(p._replace(query=p.query.float())).total, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a"]}, "at least 2"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"class_weights": {"d": 2.0}}, r"class_weights name \['d'\]"),
        ({"scale": 0.0}, "scale"),
        ({"uniformity_weight": -1.0}, "uniformity_weight"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassificationLoss(**{"classes": CLASSES, "embedding_size": SIZE, **options})  # type: ignore[arg-type]


def test_labels_that_are_missing_or_out_of_range() -> None:
    loss = classifier()()
    with pytest.raises(ValueError, match=r"pairs\.label is None"):
        loss(texts([0, 1])._replace(label=None))
    with pytest.raises(ValueError, match=r"has 3 classes, but pairs\.label holds 0 to 3"):
        loss(texts([0, 3]))
