"""What every strategy keeps to; a new one is here as soon as it has a file in conf/weighting."""

import copy
import io
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.testing import assert_close

from polyqwen.config.resolvers import register
from polyqwen.config.signatures import signature_of
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.gram import Graph
from tests.conftest import ROOT
from tests.ranks import on_ranks
from tests.weighting.toy_head import ToyHead

STRATEGIES = sorted(path.stem for path in (ROOT / "conf" / "weighting").glob("*.yaml"))
WINDOW = 2  # optimizer steps between updates, at most: tests take few steps
SHORT = {  # what else is long in some
    "dwa": ["weighting.eval_steps=2"],  # also in whole runs, where its weights must move
    "calibrated": ["weighting.steps=3", "weighting.eval_steps=2"],
    "stw": ["weighting.eval_steps=2", "weighting.min_samples=1", "weighting.loss_floor=0.001"],
    "stch": ["weighting.warmup=4"],
    "lossrag": ["weighting.context=both", "weighting.credit_every=1"],
}
SHORT["stw_learned"] = SHORT["stw"]
SHORT["stw_report"] = [*SHORT["stw"], "weighting.calibration_steps=3"]
CONSTANT = {"static", "equal"}
DRAWN = {
    "random",
    "pcgrad",
    "gradvac",
}  # by position, so that another order of tasks is another draw
SCALES = (3.0, 1.0, 0.4)


def overrides_of(name: str) -> list[str]:
    return [f"weighting={name}", *SHORT.get(name, [])]


@cache
def node_of(name: str, *more: str) -> dict[str, Any]:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["run_dir=x", *overrides_of(name), *more])
    node = OmegaConf.to_container(cfg.weighting, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def strategy(name: str, tasks: Sequence[str] = "abc", more: Sequence[str] = ()) -> Weighting:
    node = copy.deepcopy(node_of(name, *more)) | {"static": dict.fromkeys(tasks, 1.0)}
    if "alpha" in node and "beta" in node:
        node["alpha"], node["beta"]["until_step"] = {}, 4
    weighting: Weighting = instantiate(node, _convert_="all")
    weighting.eval_steps = min(weighting.eval_steps, WINDOW)
    return weighting


def run(weighting: Weighting, steps: range, toy: ToyHead) -> list[list[float]]:
    return [toy.step(weighting, step).tolist() for step in steps]


@pytest.mark.parametrize("name", STRATEGIES)
def test_weights_follow_what_was_seen_and_stay_finite(name: str) -> None:
    weights = torch.tensor(run(strategy(name), range(12), ToyHead(SCALES)))
    assert torch.isfinite(weights).all()
    assert (weights[0] != weights[-1]).any() != (name in CONSTANT)


@pytest.mark.parametrize("name", STRATEGIES)
def test_weights_of_all_tasks_sum_to_their_number_at_every_step(name: str) -> None:
    weighting, toy = strategy(name), ToyHead(SCALES)
    if weighting.normalize != "sum_to_T":
        pytest.skip("on its own scale")
    for step in range(8):
        toy.step(weighting, step)
        assert float(weighting.base.abs().sum()) == pytest.approx(3.0, rel=1e-9)


# strategies that keep more state under some option than they do by default
STATEFUL: list[tuple[str, tuple[str, ...]]] = [
    ("stw", ("weighting.handover=4",)),
    ("stw", ("weighting.interval={shortest: 1, longest: 4, move: 0.1, settle: 0.02}",)),
    ("stw", ("weighting.fallback=calibrated", "weighting.calibration_steps=8")),
    ("gradnorm", ("weighting.optimizer=sgd",)),
]


@pytest.mark.parametrize(("name", "more"), [*((name, ()) for name in STRATEGIES), *STATEFUL])
def test_saved_and_loaded_into_a_fresh_object_goes_on_the_same(
    name: str, more: Sequence[str]
) -> None:
    absent = {3: {1}, 7: {0, 2}}
    through, toy = strategy(name, more=more), ToyHead(SCALES, absent)
    expected = run(through, range(12), toy)
    first, again = strategy(name, more=more), ToyHead(SCALES, absent)
    head = run(first, range(6), again)
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    fresh = strategy(name, more=more)
    assert {key for key, _ in fresh.named_buffers()} == set(fresh.state_dict())
    fresh.load_state_dict(torch.load(stored, weights_only=True))
    assert head + run(fresh, range(6, 12), again) == expected
    assert_close(fresh.state_dict(), through.state_dict(), rtol=0.0, atol=0.0, equal_nan=True)
    assert {k: v.shape for k, v in through.state_dict().items()} == {
        k: v.shape for k, v in strategy(name, more=more).state_dict().items()
    }


def _two_ranks(rank: int, name: str) -> tuple[list[list[float]], list[float], Tensor]:
    toy, weighting = ToyHead(SCALES, {3: {1}}), strategy(name)
    weights = run(weighting, range(8), toy)
    return weights, toy.gradient.flatten().tolist(), toy.weight.detach()


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_are_one_process_on_the_joined_batch(name: str) -> None:
    alone = _two_ranks(0, name)
    ranks = on_ranks(2, lambda rank: _two_ranks(rank, name))
    assert ranks[0][0] == ranks[1][0]
    for answer in ranks:
        assert torch.allclose(torch.tensor(answer[0]), torch.tensor(alone[0]), rtol=2e-4, atol=1e-5)
        assert torch.allclose(torch.tensor(answer[1]), torch.tensor(alone[1]), rtol=1e-3, atol=1e-5)
    assert (torch.tensor(alone[0]).std(0) > 0).any() != (name in CONSTANT)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - DRAWN))
def test_the_order_of_tasks_does_not_matter(name: str) -> None:
    class Reordered(ToyHead):
        def _rows(self, step: int) -> tuple[Tensor, Tensor]:
            return tuple(rows[[2, 0, 1]] for rows in super()._rows(step))  # type: ignore[return-value]

    plain = torch.tensor(run(strategy(name), range(8), ToyHead(SCALES)))
    other = run(strategy(name, "cab"), range(8), Reordered([SCALES[i] for i in (2, 0, 1)]))
    assert torch.allclose(torch.tensor(other)[:, [1, 2, 0]], plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", STRATEGIES)
def test_absent_tasks_keep_their_weight_and_one_alone_is_weighed(name: str) -> None:
    weighting = strategy(name)
    toy = ToyHead(SCALES, {step: {1} for step in range(4, 8)} | {8: {0, 1}, 9: {0, 1}})
    before = run(weighting, range(4), toy)[-1][1]
    weights = torch.tensor(run(weighting, range(4, 10), toy))
    assert torch.isfinite(weights).all()
    if weighting.lag == 0:
        assert (weights[:, 1] == before).all()
        assert name == "famo" or weights[-1, 2] == pytest.approx(1.0)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_changes_nothing(name: str, bad: float) -> None:
    weighting, toy = strategy(name), ToyHead(SCALES)
    run(weighting, range(4), toy)
    before = weighting.base.clone()
    if weighting.gram is not None:
        projected = torch.ones(1, 4, requires_grad=True)
        losses = [(projected * bad).sum() for _ in range(3)]
        weighting.gram.add(losses, Graph(torch.ones(1, 4), projected, [projected]))
    weighting.observe(torch.tensor([bad, 1.0, 1.0]), torch.tensor([4, 4, 4]))
    weighting.update(4)
    assert torch.isfinite(weighting.base).all()
    state = weighting.state_dict()
    assert not any(torch.isinf(value.double()).any() for value in state.values())
    if weighting.in_step or weighting.gram is not None:
        assert torch.equal(weighting.base, before) and int(weighting.kept) == 1
    after = torch.tensor(run(weighting, range(4, 8), toy))
    assert torch.isfinite(after).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_accumulated_gradients_are_weighed_one_step_later(name: str) -> None:
    weighting = strategy(name)
    weighting.bind(dict.fromkeys("abc", 0.0), accumulate=2)
    assert weighting.lag == 1 and not weighting.needs_after
    weights = torch.tensor(run(weighting, range(8), ToyHead(SCALES)))
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_losses_without_a_lower_bound_are_refused_where_they_divide(name: str) -> None:
    weighting = strategy(name)
    bounds: dict[str, Any] = {"a": 0.0, "b": None, "c": -2.0}
    if weighting.needs_bounds:
        with pytest.raises(ValueError, match="that of b has no known lower bound"):
            weighting.bind(bounds)
    else:
        weighting.bind(bounds)
        assert weighting.lower_bounds.tolist() == [0.0, 0.0, -2.0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_configuration_check_knows_all_arguments(name: str) -> None:
    signature = signature_of(node_of(name)["_target_"])
    assert not signature.open  # else a misspelt key would pass
    assert signature.parameters["static"].required
    assert not signature.parameters["eval_steps"].required
    given = node_of(name).keys() - {"_target_"}
    assert given <= signature.parameters.keys()
