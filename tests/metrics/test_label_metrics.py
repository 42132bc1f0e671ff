"""Metrics of label tasks: values by hand and against scikit-learn, ranks, splits without rows."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from polyqwen.metrics.classification import ClassificationMetrics, SpaceMetrics
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.training.evaluation import advantage, measure
from tests.ranks import on_ranks

CLASSES = ("a", "b", "c")


def rows(count: int, seed: int = 0) -> PairEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    query = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
    key = torch.randint(-(2**62), 2**62, (count,), generator=generator)
    label = torch.randint(3, (count,), generator=generator)
    logits = torch.randn(count, 3, generator=generator)
    return PairEmbeddings(query, query, key, key, label=label, logits=logits)


def test_values_by_hand() -> None:
    label = torch.tensor([0, 0, 0, 1])
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    given = rows(4)._replace(label=label, logits=logits)
    metrics = ClassificationMetrics(CLASSES)
    values = measure(metrics, given)
    assert values["accuracy"] == pytest.approx(3 / 4) and values["rows"] == 4
    # class a: precision 1, recall 2/3; class b: precision 1/2, recall 1; class c is nowhere
    assert values["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    log_sum = math.log(math.e**2 + math.e + 1)
    assert values["loss"] == pytest.approx(log_sum - (3 * 2 + 1) / 4)
    chance = metrics.chance()
    assert chance["accuracy"] == pytest.approx(3 / 4)
    assert chance["macro_f1"] == pytest.approx((6 / 7 + 0.0) / 2)
    assert chance["loss"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed: int) -> None:
    given = rows(50, seed)
    values = measure(ClassificationMetrics(CLASSES), given)
    predicted = given.logits.argmax(dim=1)
    assert values["accuracy"] == pytest.approx(accuracy_score(given.label, predicted))
    assert values["macro_f1"] == pytest.approx(f1_score(given.label, predicted, average="macro"))
    shares = given.logits.double().softmax(dim=1).numpy()
    assert values["loss"] == pytest.approx(log_loss(given.label, shares), rel=1e-5)


def test_no_rows_are_undefined() -> None:
    metrics = ClassificationMetrics(CLASSES)
    values = metrics.compute()
    assert values["rows"] == 0 and math.isnan(values["macro_f1"]) and math.isnan(values["loss"])
    assert math.isnan(metrics.chance()["accuracy"])


def test_rows_of_ranks_are_gathered() -> None:
    given = rows(9)

    def run(rank: int) -> dict[str, float]:
        metrics = ClassificationMetrics(CLASSES)
        part = slice(0, 9) if rank else slice(0, 0)  # rank 0 has none
        if rank:
            own = [None if v is None else v[part] for v in given]
            metrics.update(PairEmbeddings(*own))
        return metrics.compute()

    whole = measure(ClassificationMetrics(CLASSES), given)
    for values in on_ranks(2, run):
        assert values == pytest.approx(whole)


def test_advantage_compares_hits_on_the_same_rows() -> None:
    good = rows(200)
    good = good._replace(logits=torch.eye(3)[good.label])
    name, interval = advantage(ClassificationMetrics(CLASSES), good, rows(200))
    bad = float((rows(200).logits.argmax(1) == good.label).double().mean())
    assert name == "accuracy" and interval.difference == pytest.approx(1 - bad)
    assert interval.low > 0


def test_space_of_texts() -> None:
    given = rows(30)
    values = measure(SpaceMetrics(), given)
    squared = np.square(given.query.numpy()[:, None] - given.query.numpy()[None]).sum(-1)
    off = np.exp(-2 * squared)[~np.eye(30, dtype=bool)]
    assert values["uniformity"] == pytest.approx(np.log(off.mean()), rel=1e-4)
    assert SpaceMetrics.main is None and SpaceMetrics().chance_of(given) == {}


def test_rows_without_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="no labels or logits"):
        ClassificationMetrics(CLASSES).update(rows(3)._replace(logits=None))
    with pytest.raises(ValueError, match="at least 2"):
        ClassificationMetrics(["a"])
