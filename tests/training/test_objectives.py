"""Candidate losses of a library beside the tasks' own: who they are, and how they train."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from polyqwen.build.instantiate import weighting_node
from polyqwen.build.run import Parts, build
from polyqwen.config.candidate_losses import Further, further_losses
from polyqwen.config.check import resolved
from polyqwen.config.errors import ConfigError
from polyqwen.training.callbacks.schedules import LossWarmup
from polyqwen.training.step import pairs_of_task
from tests.config.test_conf import composed
from tests.conftest import Configure
from tests.ranks import on_ranks
from tests.training.test_module import batch_of
from tests.training.test_resume import Result, fit

CHOICE = (
    "task=[text_pair]",
    "library=misleading",
    "curriculum=single_phase",
    "callbacks.boost=null",
)
CANDIDATE = "polyqwen.losses.candidates.Candidate"


def node(target: str, needs: str = "pairs", family: str = "contrastive") -> dict[str, Any]:
    return {
        "_target_": CANDIDATE,
        "loss": {"_target_": f"polyqwen.losses.{target}"},
        "needs": needs,
        "family": family,
    }


def values(*tasks: str, **more: Any) -> dict[str, Any]:
    paired = {"query_text": "a", "document_text": "b"}
    return {
        "tasks": {task: {"fields": paired} for task in tasks}
        | {"topic": {"fields": {"query_text": "a", "labels": "labels"}}},
        "library": {"cosent": node("cosent.CoSENTLoss", "scores", "score_order"), "dropped": None},
        "library_tasks": [],
        "weighting": {
            "_target_": "polyqwen.weighting.lossrag.strategy.LossRAG",
            "static": {**dict.fromkeys(tasks, 1.5), "topic": 1.0},
            "anchor": None,
            "families": {},
        },
    } | more


def test_candidates_train_all_tasks_with_pairs() -> None:
    assert further_losses(values("a")) == {"cosent": Further("a", "cosent")}
    both = {"a_cosent": Further("a", "cosent"), "b_cosent": Further("b", "cosent")}
    assert further_losses(values("a", "b")) == both
    one = values("a", "b", library_tasks=["b"])
    assert further_losses(one) == {"cosent": Further("b", "cosent")}
    assert further_losses(values("a", library=None)) == {}
    for task in ("topic", "c"):
        with pytest.raises(ConfigError, match=f"'{task}' is no task with pairs"):
            further_losses(values("a", library_tasks=[task]))
    with pytest.raises(ConfigError, match="a task has this name"):
        further_losses(values("cosent"))


def test_a_candidate_that_needs_vectors_trains_tasks_that_have_some() -> None:
    own = values("a", "b")
    distilled = node("relational_kl.RelationalKLLoss", "vectors", "distillation")
    own["library"]["relational_kl"] = distilled
    with pytest.raises(ConfigError, match=r"\+tasks\.a\.fields\.teacher_query=COLUMN"):
        further_losses(own)
    own["tasks"]["b"]["fields"] = {**own["tasks"]["b"]["fields"], "teacher_document": "v"}
    assert further_losses(own) == {
        "a_cosent": Further("a", "cosent"),
        "b_cosent": Further("b", "cosent"),
        "relational_kl": Further("b", "relational_kl"),
    }


def test_the_weighting_is_told_of_them() -> None:
    told = weighting_node(values("a"))
    assert told["static"] == {"a": 1.5, "topic": 1.0, "cosent": 1.5}
    assert told["families"] == {"cosent": "score_order"} and told["anchor"] == "a"
    given = values("a")
    given["weighting"]["static"]["cosent"] = 0.1
    given["weighting"]["anchor"] = "cosent"
    told = weighting_node(given)
    assert told["static"]["cosent"] == 0.1 and told["anchor"] == "cosent"
    assert weighting_node(values("a", library=None)) == values("a")["weighting"]


@pytest.fixture
def parts_of_choice(configure: Configure) -> Parts:
    return build(configure(*CHOICE, "weighting=static", "+weighting.static.cosent=0.5"))


def test_the_loss_is_the_weighted_sum_of_all(parts_of_choice: Parts) -> None:
    model = parts_of_choice.model
    assert model.tasks == ("text_pair",) and len(model.streams) == 29
    model.boost["text_pair"] = 2.0
    batch = batch_of(parts_of_choice, ["text_pair"], rows=8)
    total = model.training_step(batch, 0)
    pairs = pairs_of_task(model(batch), batch.tasks["text_pair"])
    present = set(model.streams) - {"triplet_given"}  # no hard negatives in these rows
    by_hand = {name: model.losses[name](pairs).total for name in present}
    weights = {name: 2.0 * (0.5 if name == "cosent" else 1.0) for name in present}
    assert_close(total, sum(weights[n] * by_hand[n] for n in model.streams if n in present))
    record = model.record
    assert record is not None and set(record.outputs) == present
    assert record.rows == {"text_pair": 8} and set(record.gaps) == {"text_pair"}
    counts = dict(zip(model.streams, model.weighting.sums.rows.tolist(), strict=True))
    assert counts == {name: 8.0 if name in present else 0.0 for name in model.streams}


def test_warmups_leave_candidates_alone(parts_of_choice: Parts) -> None:
    model = parts_of_choice.model
    warmup: Any = LossWarmup("temperature", start=0.5, steps=10)
    warmup.on_fit_start(None, model)
    assert warmup.apply(None, model) == {"schedule/temperature": 0.5}
    assert model.losses["text_pair"].temperature == 0.5
    assert model.losses["info_nce_sharp"].loss.temperature == 0.02


def test_trusted_rows_are_judged_by_the_tasks_own_losses(configure: Configure) -> None:
    """Whatever candidates say: the sum of all would call inverted scores an aim."""
    model = build(configure(*CHOICE, "weighting=exp_gradient", "data.trusted_rows=4")).model
    losses = torch.full((len(model.streams),), 7.0)
    losses[list(model.streams).index("text_pair")] = 2.0
    further = [name for name, task in model.streams.items() if name != task]
    assert float(model.weighting.trusted_objective(losses)) > 6.0
    model.weighting.bind(dict.fromkeys(model.streams, 0.0), 1, further)
    assert float(model.weighting.trusted_objective(losses)) == 2.0


@pytest.mark.parametrize("name", ["lossrag", "exp_gradient", "pcgrad"])
def test_a_choice_resumes_exactly(configure: Configure, tmp_path: Path, name: str) -> None:
    options = ("data.trusted_rows=4",)
    weighting = [f"weighting={name}"]
    through = fit(configure, tmp_path / "a", *CHOICE, *options, weighting=weighting)
    ckpt = tmp_path / "a" / "5.ckpt"
    resumed = fit(configure, tmp_path / "b", *CHOICE, *options, weighting=weighting, ckpt=ckpt)
    assert_close(resumed.state, through.state, rtol=0.0, atol=0.0, equal_nan=True)
    assert through.state["weighting.base"].std() > 1e-3


def test_two_ranks_choose_like_one_process(configure: Configure, tmp_path: Path) -> None:
    options = ("data.trusted_rows=4", *CHOICE)

    def run(rank: int) -> Result:
        own = ("trainer.devices=2", "data.rows_per_task=4")
        return fit(configure, tmp_path / "two", *options, *own, weighting=["weighting=nnls_match"])

    one = fit(
        configure,
        tmp_path / "one",
        *options,
        "data.rows_per_task=8",
        weighting=["weighting=nnls_match"],
    )
    two = on_ranks(2, run)
    bases = [result.state["weighting.base"] for result in (*two, one)]
    assert torch.equal(bases[0], bases[1])
    ours, theirs = (torch.cat([g.flatten() for g in r.gradients]) for r in (two[0], one))
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("library", ["none", "embedding", "misleading"])
def test_the_recipe_of_choosing_composes(library: str) -> None:
    cfg = composed("experiment=choose_losses", f"library={library}")
    further = further_losses(resolved(cfg))
    assert len(further) == {"none": 0, "embedding": 22, "misleading": 28}[library]
