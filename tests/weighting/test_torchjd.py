"""TorchJD as a plug."""

from typing import Any

import pytest
import torch
from torchjd import aggregation

from polyqwen.weighting.by_gradient.torchjd import TorchJD
from polyqwen.weighting.gram import FullParameterGram
from tests.weighting.gradient_cases import drawn, solved, trained


def make_torchjd(name: str, tasks: int = 3, **changes: Any) -> TorchJD:
    static = {f"task{i}": 1.0 for i in range(tasks)}
    return TorchJD(static=static, gram=FullParameterGram(), name=name, **changes)


def test_torchjd_solves_as_the_library_does() -> None:
    gradients = drawn(4, 3)
    gram = gradients @ gradients.T
    for name, arguments in (("MGDAWeighting", {"epsilon": 1e-5}), ("IMTLGWeighting", None)):
        strategy = make_torchjd(name, arguments=arguments)
        expected = getattr(aggregation, name)(**(arguments or {}))(gram)
        assert torch.equal(solved(strategy, gradients), expected)
    trained(strategy, gradients, [1.0] * 3, 0)
    assert strategy.base.tolist() == pytest.approx((3 * expected / expected.abs().sum()).tolist())


def test_torchjds_draws_come_from_seed_and_step() -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    strategy = make_torchjd("RandomWeighting")
    first, again, other = (solved(strategy, drawn(0, 3), step) for step in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("Mgda", None, "near: .*MGDAWeighting"),
        ("MGDA", None, "near: .*MGDAWeighting"),
        ("Weighting", None, "no weighting of torchjd"),
        ("GradVacWeighting", None, "cannot restore from a checkpoint"),
        ("MGDAWeighting", {"eps": 1.0}, "epsilon.*unexpected keyword argument 'eps'"),
        ("MGDAWeighting", {"epsilon": -1.0}, "must be positive"),
        ("KrumWeighting", {"n_byzantine": 9}, "does not work on a 3 x 3"),
        ("ConstantWeighting", {"weights": [1.0, 2.0]}, "do not suit"),
        ("UPGradWeighting", None, "requires .*quadprog"),
    ],
)
def test_torchjd_refuses_in_one_line(name: str, arguments: Any, words: str) -> None:
    if name == "UPGradWeighting":
        pytest.importorskip("torchjd")
        if _importable("quadprog"):
            pytest.skip("its extra packages are installed")
    with pytest.raises(ValueError, match=words) as error:
        make_torchjd(name, arguments=arguments)
    assert "\n" not in str(error.value)


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_torchjd_is_asked_for_only_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)  # as if it were not installed
    with pytest.raises(ValueError, match="pip install torchjd"):
        make_torchjd("MGDAWeighting")
