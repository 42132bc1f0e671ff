"""LossRAG: retrieval, deactivation and learning by hand, and switches that do what they say."""

import io
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from polyqwen.losses.candidates import FAMILIES
from polyqwen.weighting.feature_sketch import FeatureSketch
from polyqwen.weighting.gram import SharedHeadGram
from polyqwen.weighting.lossrag.activity import Activity
from polyqwen.weighting.lossrag.chooser import Chooser, Offer, retrieve
from polyqwen.weighting.lossrag.context import ENTRIES, STATE
from polyqwen.weighting.lossrag.descriptors import AVERAGED, FEATURES, Descriptors
from polyqwen.weighting.lossrag.measurements import (
    Measurement,
    RealisedCredit,
    RunningMean,
    RunningScale,
)
from polyqwen.weighting.lossrag.policy import Policy
from polyqwen.weighting.lossrag.strategy import LossRAG
from polyqwen.weighting.weight_update import WeightUpdate
from tests.ranks import on_ranks
from tests.weighting.gradient_cases import collect
from tests.weighting.toy_head import ToyHead

LOSSES = ("main", "helper", "harm", "aside")
DIRECTIONS = ((1.0, 0.3, 0.0), (0.6, -0.6, 0.0), (-1.0, 0.0, 0.4), (0.1, 0.0, 1.0))
AIM = (1.0, 0.0, 0.0)


def near(values: Any) -> Any:
    return pytest.approx(list(values), rel=1e-6, abs=1e-9)


def double(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rag(losses: Sequence[str] = LOSSES, **options: Any) -> LossRAG:
    given: dict[str, Any] = {"total_steps": 100, "anchor": losses[0], **options}
    return LossRAG(static=dict.fromkeys(losses, 1.0), gram=SharedHeadGram(), **given)


def told(weighting: LossRAG, step: int, harm: float = 1.0) -> WeightUpdate:
    """An update from noisy gradients; ``harm`` turns the third loss's round when it is −1."""
    generator = torch.Generator().manual_seed(step)
    noise = 0.2 * torch.randn(4, 3, generator=generator)
    gradients = torch.tensor(DIRECTIONS) * torch.tensor([[1.0], [1.0], [harm], [1.0]]) + noise
    scales = torch.tensor([[1.0], [10.0], [0.1], [3.0]])
    collect(weighting.gram, gradients * scales, torch.tensor(AIM))
    weighting.observe(torch.full((4,), 2.0 - 0.01 * step), torch.full((4,), 8))
    update = weighting.update(step, torch.full((4,), 3.0 - 0.02 * step))
    assert update is not None
    return update


def parameters(weighting: LossRAG) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in weighting.policy.parts._asdict().items()}


def test_retrieval_by_hand() -> None:
    scores = double(1.0, 2.0, 4.0).log()
    assert retrieve(scores, None, None, 0.1).tolist() == near(
        0.9 * k / 7 + 0.1 / 3 for k in (1, 2, 4)
    )
    assert retrieve(scores, 0, 2, 0.1).tolist() == near([0.9 * 0.2 + 0.05, 0.0, 0.9 * 0.8 + 0.05])
    assert retrieve(scores, None, 2, 0.0).tolist() == near([0.0, 1 / 3, 2 / 3])
    assert retrieve(scores, 0, 1, 0.02).tolist() == near([1.0, 0.0, 0.0])


def test_scores_by_hand() -> None:
    policy = Policy("ab", learning_rate=0.1, scale=2.0, ids=True, id_decay=0.0, seed=0)
    for part in (policy.projection, policy.query, policy.query_bias, policy.identity):
        part.zero_()
    policy.projection[0, 0], policy.identity[1, 1] = 3.0, 4.0  # φ_0 points one way, b another
    policy.query_bias[0], policy.query[1, 2] = 1.0, 5.0
    features = torch.zeros(2, len(FEATURES), dtype=torch.float64)
    features[:, 0] = 1.0
    context = torch.zeros(len(ENTRIES), dtype=torch.float64)
    context[2] = 0.1
    scores = policy.scores(features, context, torch.tensor([0, 1]))
    # e_a = (1, 0), e_b = (3, 4) / 5, q = (1, 0.5)
    assert scores.tolist() == pytest.approx([2.0, 2.0 * (0.6 + 0.8 * 0.5)], rel=1e-6)


def test_the_policys_gradient_is_that_of_finite_differences() -> None:
    policy = Policy("abc", learning_rate=0.1, scale=4.0, ids=True, id_decay=0.1, seed=3)
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(
        torch.randn(3, 5, generator=generator, dtype=torch.float64), dim=-1
    )
    offer = Offer(
        losses=torch.tensor([0, 2, 1]),
        features=torch.randn(3, len(FEATURES), generator=generator, dtype=torch.float64),
        context=torch.randn(len(ENTRIES), generator=generator, dtype=torch.float64),
        agreement=unit[:, 0],
        similarity=unit @ unit.T,
        prior=double(1.0, 2.0, 1.0),
        anchor=0,
    )
    chooser = Chooser(policy, 2, 0.05, 0.05, 0.1, False)
    asked = offer.features, offer.context, offer.losses
    exact = policy.gradient(*asked, lambda scores: chooser.value(scores, offer))

    def climbed() -> float:
        penalty = 0.05 * float(policy.identity.square().sum())
        return float(chooser.value(policy.scores(*asked), offer)) - penalty

    for name, gradient in exact._asdict().items():
        flat = getattr(policy, name).view(-1)
        assert gradient.norm() > 1e-3, name
        for place in range(0, len(flat), max(1, len(flat) // 7)):
            before = float(flat[place])
            flat[place] = before + 1e-5
            above = climbed()
            flat[place] = before - 1e-5
            slope = (above - climbed()) / 2e-5
            flat[place] = before
            assert float(gradient.flatten()[place]) == pytest.approx(slope, abs=1e-7), (name, place)


def test_deactivation_by_hand() -> None:
    """With equal weights (decay 1): mean ± 1.64 σ / √(n − 1)."""
    activity = Activity(LOSSES, anchor=0, patience=2, retest_every=3, decay=1.0)
    present = torch.ones(4, dtype=torch.bool)

    def told(harm: float) -> tuple[list[bool], dict[str, str]]:
        looked = activity.look(present)
        return looked.tolist(), activity.judge(double(harm, 0.5, harm, -0.1 if harm < 0 else 0.1))

    for r in (-0.2, -0.3, -0.2):
        looked, notes = told(r)
        assert all(looked) and not notes
    mean, error = activity.estimate()
    assert float(mean[2]) == pytest.approx(-0.7 / 3)
    assert float(error[2]) == pytest.approx(math.sqrt((0.17 / 3 - (0.7 / 3) ** 2) / 2))
    _, notes = told(-0.3)  # the second look in a row that speaks against; the anchor stays
    assert set(notes) == {"harm", "aside"} and activity.on.tolist() == [True, True, False, False]
    assert notes["harm"] == "off: agreement -0.250 ± 0.047 below 0 at 2 looks in a row"
    seen = [told(r) for r in (0.2, 0.2, 0.2, 0.9, 0.9, 0.3, 0.9, 0.9, 0.2)]
    assert [looked[2] for looked, _ in seen] == [False, False, True] * 3
    assert not any(notes for _, notes in seen[:-1])
    assert seen[-1][1]["harm"] == "on again: agreement +0.233 ± 0.055 above 0 at 3 tests"
    assert activity.on.all()


@pytest.mark.parametrize(("on", "signs"), [(True, (-1.0, 1.0)), (False, (1.0, -1.0))])
def test_a_noisy_loss_stays_as_it_is(on: bool, signs: tuple[float, float]) -> None:
    """Mean −0.1 (or +0.1 of one that is off), in looks that differ by 0.8."""
    activity = Activity(LOSSES, anchor=0, patience=2, retest_every=1, decay=1.0)
    activity.on[2] = on
    for look in range(12):
        activity.look(torch.ones(4, dtype=torch.bool))
        sign, other = signs
        assert not activity.judge(double(1.0, 1.0, (0.5 * sign, 0.3 * other)[look % 2], 1.0))
    mean, error = activity.estimate()
    assert float(mean[2]) == pytest.approx(0.1 * signs[0]) and float(error[2]) > 0.1
    assert bool(activity.on[2]) is on


def test_a_loss_that_is_off_goes_on_waiting_for_its_test_after_a_resume() -> None:
    def activity() -> Activity:
        return Activity(LOSSES, anchor=0, patience=2, retest_every=5, decay=1.0)

    def look(state: Activity) -> bool:
        looked = state.look(torch.ones(4, dtype=torch.bool))
        state.judge(double(1.0, 1.0, -0.5, 1.0))
        return bool(looked[2])

    through = activity()
    seen = [look(through) for _ in range(6)]
    assert seen == [True] * 4 + [False] * 2 and not through.on[2]
    resumed = activity()
    resumed.load_state_dict(through.state_dict())
    assert [look(resumed) for _ in range(4)] == [False, False, True, False]


def test_a_loss_that_is_absent_gives_no_evidence() -> None:
    activity = Activity(LOSSES, anchor=0, patience=2, retest_every=3)
    for _ in range(9):
        assert activity.look(torch.tensor([True, True, False, True])).tolist()[2] is False
        activity.judge(torch.full((4,), -0.5, dtype=torch.float64))
    assert activity.on.tolist() == [True, False, True, False]


def test_planted_harm_is_switched_off_and_comes_back_when_it_helps() -> None:
    weighting = rag(retest_every=5, patience=5)
    history = [told(weighting, step) for step in range(30)]
    off = next(i for i, update in enumerate(history) if update.causes["active"]["harm"] == 0.0)
    assert 5 <= off < 15 and history[off].notes["harm"].startswith("off: agreement -0.")
    assert all(update.new["harm"] == 0.0 for update in history[off:])
    for name in ("main", "helper", "aside"):
        assert all(update.causes["active"][name] == 1.0 for update in history)
    again = [told(weighting, step, harm=-1.0) for step in range(30, 60)]
    back = next(i for i, update in enumerate(again) if update.causes["active"]["harm"] == 1.0)
    assert back >= 10 and "on again" in again[back].notes["harm"]
    assert again[back].causes["agreement"]["harm"] > 0.8  # its past is forgotten
    assert again[-1].new["harm"] > 0.0 and again[-1].causes["share"]["harm"] > 0.1


def test_shares_climb_the_objective() -> None:
    """Of directions whose plain mean is nearly at right angles to the aim, a good mix is found."""
    generator = torch.Generator().manual_seed(2)
    directions = double((1.0, 0.0, 0.0), (0.5, -0.9, 0.0), (-1.0, 0.0, 0.2), (-0.2, 0.5, 1.0))
    unit = torch.nn.functional.normalize(directions, dim=-1)
    offer = Offer(
        losses=torch.arange(4),
        features=torch.randn(4, len(FEATURES), generator=generator, dtype=torch.float64),
        context=torch.randn(len(ENTRIES), generator=generator, dtype=torch.float64),
        agreement=unit[:, 0],
        similarity=unit @ unit.T,
        prior=torch.ones(4, dtype=torch.float64),
        anchor=0,
    )
    policy = Policy(LOSSES, learning_rate=0.002, scale=4.0, ids=True, id_decay=0.01, seed=0)
    choices = [Chooser(policy, None, 0.02, 0.05, 0.01, False).choose(offer) for _ in range(200)]
    found = [float(choice.expected) for choice in choices]
    assert found[0] < 0.5 and found[-1] > 0.95
    mix = choices[-1].share @ unit
    assert found[-1] == pytest.approx(float(mix[0] / mix.norm()))
    assert choices[0].share.max() < 0.5 < choices[-1].share[0]  # no prejudice at the start
    still = Chooser(policy, None, 0.02, 0.05, 0.01, True)
    assert torch.equal(still.choose(offer).share, still.choose(offer).share)


def test_shares_are_shares_of_the_step_whatever_the_scales() -> None:
    weighting = rag()
    for step in range(20):
        last = told(weighting, step)
    share = last.causes["share"]
    lengths = {name: float(n) for name, n in zip(LOSSES, weighting.norms, strict=True)}
    steps = [last.new[name] * lengths[name] for name in LOSSES]
    assert [step / sum(steps) for step in steps] == near(share.values())
    assert share["harm"] == 0.0 and sum(last.new.values()) == pytest.approx(4.0)
    assert "main" in last.reason and "1 off; J +0.9" in last.reason


@pytest.mark.parametrize(
    ("options", "still"),
    [
        ({"descriptors": False, "context": "none"}, {"projection", "query"}),
        ({"context": "none"}, {"query"}),
        ({"ids": False}, {"identity"}),
    ],
)
def test_what_is_switched_off_does_not_learn(options: dict[str, Any], still: set[str]) -> None:
    weighting = rag(**options)
    before = parameters(weighting)
    for step in range(4):
        told(weighting, step)
    after = parameters(weighting)
    assert {name for name in before if torch.equal(before[name], after[name])} == still
    assert bool(weighting.library.features().any()) == weighting.library.described
    assert bool(weighting.library.situation.values.any()) == (options.get("context") != "none")
    assert bool(after["identity"].any()) == options.get("ids", True)


def test_without_ids_losses_that_do_the_same_score_the_same() -> None:
    for ids in (True, False):
        policy = Policy("ab", learning_rate=0.1, scale=4.0, ids=ids, id_decay=0.0, seed=0)
        features = torch.ones(2, len(FEATURES), dtype=torch.float64)
        context = torch.ones(len(ENTRIES), dtype=torch.float64)
        scores = policy.scores(features, context, torch.tensor([0, 1]))
        assert torch.isclose(scores[0], scores[1]) != ids


@pytest.mark.parametrize(("top_k", "taken"), [(None, 4), (3, 3), (1, 1)])
def test_no_more_than_k_losses_and_always_the_anchor(top_k: int | None, taken: int) -> None:
    weighting = rag(top_k=top_k, anchor="aside", patience=None)
    for step in range(5):
        share = told(weighting, step).causes["share"]
        assert sum(value > 0.0 for value in share.values()) == taken and share["aside"] > 0.0


def test_nothing_is_switched_off_without_patience() -> None:
    weighting = rag(patience=None)
    assert all(told(weighting, step).causes["active"]["harm"] == 1.0 for step in range(25))


def test_rest_when_the_anchor_is_absent_and_all_others_are_off() -> None:
    weighting = rag()
    weighting.library.activity.on.copy_(torch.tensor([True, False, False, False]))
    share = weighting.share(torch.zeros(4).double(), torch.eye(4).double(), torch.tensor([1, 2]))
    assert (share > 0.0).all() and float(share.sum()) == pytest.approx(1.0)


def test_the_anchor_can_be_the_aim() -> None:
    losses = torch.tensor([1.0, 2.0, math.nan, 6.0])
    assert float(rag().trusted_objective(losses)) == 3.0
    judged = rag(aim="anchor", anchor="helper")
    judged.bind(dict.fromkeys(judged.tasks, 0.0))
    assert float(judged.trusted_objective(losses)) == 2.0


def test_the_default_anchor_has_the_largest_weight() -> None:
    weights = {"b": 1.0, "a": 1.0, "c": 0.5}
    assert LossRAG(static=weights, gram=SharedHeadGram(), total_steps=1).tasks[0] == "b"
    assert LossRAG(static=weights, gram=SharedHeadGram(), total_steps=1).anchor == 1
    assert LossRAG(static={**weights, "c": 2.0}, gram=SharedHeadGram(), total_steps=1).anchor == 2


def test_running_means_by_hand() -> None:
    mean = RunningMean((2,), decay=0.5)
    assert mean.mean.isnan().all() and not mean.count.any()
    for values in ((4.0, 1.0), (1.0, math.nan), (1.0, 3.0)):
        mean.add(double(*values))
    # weights 1/4, 1/2, 1 and 1/2, 1
    assert mean.mean.tolist() == near([(1 + 0.5 + 1) / 1.75, (0.5 + 3) / 1.5])
    assert mean.count.tolist() == near([1.75**2 / (1 / 16 + 1 / 4 + 1), 1.5**2 / 1.25])
    mean.restart(torch.tensor([True, False]))
    assert mean.mean[0].isnan() and not mean.mean[1].isnan()


def test_z_scores_are_clipped_and_do_not_blow_up_rounding_errors() -> None:
    scale = RunningScale(3)
    scale.add(double((1.0, 5.0, math.nan), (3.0, 5.0 + 1e-9, math.nan)))
    assert scale(double(3.0, 5.0 + 1e-9, 7.0)).tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-4)
    assert scale(double(99.0, math.nan, 0.0)).tolist() == [3.0, 0.0, 0.0]


def test_descriptors_by_hand() -> None:
    descriptors = Descriptors([None, "score_order"])
    cosines = double((1.0, -0.5), (-0.5, 1.0))
    unknown = torch.full((2,), math.nan, dtype=torch.float64)

    def look(loss: tuple[float, float], r: tuple[float, float]) -> None:
        seen = Measurement(
            looked=torch.ones(2, dtype=torch.bool),
            norms=double(2.0, 8.0),
            cosines=cosines,
            agreement=double(*r),
            loss=double(*loss),
            trusted=0.0,
            share=double(0.5, 0.5),
            progress=0.0,
        )
        descriptors.observe(seen, 0, unknown)

    look((1.0, 4.0), (0.5, -0.5))
    raw = dict(zip(FEATURES, descriptors.raw(unknown).T.tolist(), strict=False))
    assert raw["log_norm"] == near([0.0, math.log(4.0)])
    assert raw["cos_mean"] == near([0.5, 0.5])  # (1 − .5) / ‖u + v‖, and ‖u + v‖² = 1
    assert raw["cos_anchor"] == near([1.0, -0.5]) and raw["conflict"] == near([0.5, 0.5])
    assert raw["sensitivity"] == near([math.log(2.0), math.log(2.0)])
    assert raw["harmful"] == [0.0, 1.0] and raw["left"] == [0.0, 0.0]
    assert math.isnan(raw["slope"][0]) and raw["credit_spread"] == pytest.approx([0.0, 0.0])
    look((0.5, 4.0), (0.5, 0.5))
    raw = dict(zip(FEATURES, descriptors.raw(unknown).T.tolist(), strict=False))
    assert raw["slope"] == near([math.log(0.5), 0.0])
    assert raw["left"] == near([math.log(0.5) / 1.9, 0.0])
    centre = (0.5 - 0.9 * 0.5) / 1.9
    spread = math.sqrt(0.25 - centre**2 + 1e-6) - 1e-3
    assert raw["credit_spread"] == pytest.approx([0.0, spread], abs=1e-6)
    assert raw["steadiness"] == near([0.25 / (0.25 + 1e-6), centre**2 / (0.25 + 1e-6)])
    features = descriptors.features(unknown)
    assert features.shape == (2, len(FEATURES)) and features[:, -len(FAMILIES) :].sum() == 1.0
    assert features[1, FEATURES.index("family_score_order")] == 1.0
    assert features.abs().max() <= 3.0 and len(AVERAGED) < len(FEATURES)


def test_credit_in_hindsight_finds_who_paid() -> None:
    credit, level = RealisedCredit(2, every=2), 0.0
    credit.observe(double(0.0, 0.0), level)
    for window in range(20):
        pays = 0.2 + 0.6 * (window % 2)
        for _ in range(2):
            level -= pays
            credit.observe(double(pays, 1.0 - pays), level)
        assert credit.correlation.isnan().all() == (window < 4)
    rho = credit.correlation
    assert rho.tolist() == pytest.approx([1.0, -1.0], abs=1e-6)


def test_the_sketch_is_the_projected_mean() -> None:
    sketch = FeatureSketch(size=3, seed=5)
    first, second = torch.randn(4, 6), torch.randn(2, 6)
    sketch.add(first)
    sketch.add(second)
    random = torch.randn(6, 3, generator=torch.Generator().manual_seed(5)) / 6**0.5
    taken = sketch.take()
    assert taken is not None
    assert taken.tolist() == pytest.approx(
        (torch.cat([first, second]).mean(0) @ random).tolist(), rel=1e-4
    )
    assert sketch.take() is None
    sketch.add(torch.full((1, 6), math.nan))
    assert sketch.take() is None
    spoiled = torch.cat([second, torch.full((1, 6), math.nan)])
    sketch.add(spoiled, finite=torch.tensor(False))
    assert sketch.take() is None
    sketch.add(first, finite=torch.tensor(True))
    sketch.add(spoiled, finite=torch.tensor(False))
    taken = sketch.take()
    assert taken is not None and torch.allclose(taken, (first.mean(0) @ random).double())


def test_features_are_asked_for_only_where_they_are_used() -> None:
    toy, weighting = ToyHead((3.0, 1.0, 0.4)), rag("abc", context="features")
    for step in range(4):
        toy.step(weighting, step)
    state, features = weighting.library.situation.values.split([len(STATE), 8])
    assert not state.any() and features.any() and weighting.needs_features
    assert not rag().needs_features
    with pytest.raises(NotImplementedError, match="asks for no features"):
        rag().observe_features(torch.ones(2, 3))


def _trained(rank: int) -> tuple[list[list[float]], Tensor]:
    toy, weighting = ToyHead((3.0, 1.0, 0.4), {3: {1}}), rag("abc", context="both", top_k=2)
    weights = [toy.step(weighting, step).tolist() for step in range(8)]
    return weights, weighting.library.situation.values


def test_two_ranks_see_the_same_batch() -> None:
    alone, ranks = _trained(0), on_ranks(2, _trained)
    assert ranks[0][0] == ranks[1][0] and torch.equal(ranks[0][1], ranks[1][1])
    assert torch.allclose(ranks[0][1], alone[1], atol=1e-4) and alone[1][-8:].any()
    assert torch.allclose(torch.tensor(ranks[0][0]), torch.tensor(alone[0]), rtol=1e-3, atol=1e-4)


def test_resumes_with_features_and_keeps_its_precision() -> None:
    options: dict[str, Any] = {"context": "both", "patience": 2, "credit_every": 1}
    options["eval_steps"] = 1
    toy, weighting = ToyHead((3.0, 1.0, 0.4)), rag("abc", **options).to(torch.bfloat16)
    for step in range(7):
        toy.step(weighting, step)
    stored = io.BytesIO()
    torch.save(weighting.state_dict(), stored)
    stored.seek(0)
    fresh = rag("abc", **options)
    fresh.load_state_dict(torch.load(stored, weights_only=True))
    other = ToyHead((3.0, 1.0, 0.4))
    other.weight = toy.weight.detach().clone().requires_grad_()
    for step in range(7, 14):
        assert torch.equal(toy.step(weighting, step), other.step(fresh, step))
    for key, value in weighting.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key
        assert not value.is_floating_point() or value.dtype == torch.float64
    assert not weighting.library.credit.correlation.isnan().any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"anchor": "nobody"}, "anchor must be one of main, helper"),
        ({"families": {"main": "fuzzy"}}, "families.main must be one of contrastive"),
        ({"families": {"nobody": "margin"}}, "families.nobody must be given for one of main"),
        ({"context": "all"}, "context must be one of none, state"),
        ({"aim": "best"}, "aim must be one of mean, anchor"),
        ({"top_k": 0}, "top_k must be >= 1, or null"),
        ({"patience": 0}, "patience must be >= 1, or null"),
        ({"total_steps": 0}, "total_steps must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"floor": 1.0}, "floor"),
        ({"entropy": -1.0}, "entropy"),
        ({"descriptors": False, "ids": False}, "all losses would look alike"),
        ({"frozen": True}, "frozen must be false without policy_from"),
    ],
)
def test_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rag(**options)
