"""The weigher between step and weighting: which step an update reads, and whose λ it sets."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from polyqwen.build.run import Parts
from polyqwen.training.callbacks.base import StepCallback
from polyqwen.training.task_weigher import TaskWeigher
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_gradient.mgda import MGDA
from polyqwen.weighting.by_loss.dwa import DynamicWeightAverage
from polyqwen.weighting.by_loss.famo import FAMO
from polyqwen.weighting.by_validation.exp_gradient import ExponentiatedGradient
from polyqwen.weighting.gram import SharedHeadGram
from tests.training.test_module import TASKS, batch_of

ONES = dict.fromkeys(TASKS, 1.0)


def weighed_by(weighting: Weighting, parts: Parts, accumulate: int = 1) -> TaskWeigher:
    model = parts.model
    weigher = model.weigher = TaskWeigher(model, weighting, model.step_losses)
    weigher.bind(accumulate)
    return weigher


def test_a_step_is_weighed_by_its_own_gradients(parts: Parts) -> None:
    weigher = weighed_by(MGDA(static=ONES, gram=SharedHeadGram()), parts)
    parts.model.training_step(batch_of(parts), 0)
    applied = torch.stack([parts.model.record.weights[task] for task in TASKS])
    assert_close(applied, weigher.weighting.base.float())
    assert applied.std() > 1e-3, "the update changed nothing"
    update = weigher.after_step(1)
    assert update is not None and update.step == 0 and update.new != update.old
    assert weigher.after_step(1) is None, "an update is handed out once"


def test_accumulated_gradients_weigh_the_next_step(parts: Parts) -> None:
    weigher = weighed_by(MGDA(static=ONES, gram=SharedHeadGram()), parts, accumulate=2)
    for index in range(2):
        parts.model.training_step(batch_of(parts), index)
        assert [float(w) for w in parts.model.record.weights.values()] == [1.0] * len(TASKS)
    update = weigher.after_step(1)
    assert update is not None and update.step == 1
    assert update.counts == dict.fromkeys(TASKS, 8), "rows of both micro-batches"
    assert weigher.weighting.base.std() > 1e-3


def test_a_window_of_several_steps_ends_after_its_last(parts: Parts) -> None:
    weigher = weighed_by(DynamicWeightAverage(static=ONES, eval_steps=3), parts)
    steps = []
    for step in range(1, 7):
        parts.model.training_step(batch_of(parts, rows=2), step - 1)
        parts.model.start_step = step
        update = weigher.after_step(step)
        steps += [] if update is None else [(update.step, update.counts["ocr"])]
    assert steps == [(3, 6), (6, 6)]


def test_losses_after_the_step_are_those_of_its_own_rows(parts: Parts) -> None:
    weighting = FAMO(static=ONES)
    weigher, seen = weighed_by(weighting, parts), []
    weighting.observe_after = seen.append  # type: ignore[method-assign]
    batch = batch_of(parts, ("ocr", "vqa_multi"))
    parts.model.training_step(batch, 0)
    weigher.after_step(1)
    (losses,) = seen
    outputs = parts.model.record.outputs
    assert torch.isnan(losses).tolist() == [task not in outputs for task in TASKS]
    own = torch.stack([outputs[task].total for task in ("ocr", "vqa_multi")])
    assert_close(losses[~torch.isnan(losses)], own)  # nothing was trained in between


def test_trusted_rows_are_read_once_and_without_dropout(parts: Parts) -> None:
    weigher = weighed_by(
        ExponentiatedGradient(static=ONES, gram=SharedHeadGram(), eval_steps=1), parts
    )
    model, batch, loads, modes = parts.model, batch_of(parts), [], []
    plain = model.project

    def trusted_batch() -> Any:
        loads.append(1)
        return batch

    def project(pooled: Any, tasks: Any) -> Any:
        modes.append((model.training, pooled.requires_grad))
        return plain(pooled, tasks)

    model.trusted_batch, model.project = trusted_batch, project  # type: ignore[method-assign]
    for index in range(2):
        model.training_step(batch_of(parts), index)
        update = weigher.after_step(index + 1)
        assert update is not None and "agreement" in update.causes
    assert loads == [1], "the rows are kept"
    assert modes == [(True, True), (False, False)] * 2, "evaluation mode, no graph in the encoder"
    assert model.training


def test_a_monitor_gets_gradients_whatever_the_weighting(parts: Parts) -> None:
    weigher, first, second = parts.model.weigher, SharedHeadGram(), SharedHeadGram()
    assert weigher.watched() is None
    weigher.watch(first)
    weigher.watch(second)
    parts.model.training_step(batch_of(parts), 0)
    products = weigher.watched()
    assert products is not None and products.tasks.diagonal().min() > 0
    assert second.take() is None and weigher.watched() is None


def test_nothing_is_learned_from_a_micro_batch_that_is_not_finite(parts: Parts) -> None:
    """Neither from the task at fault nor from others; what is left is the other micro-batch."""
    updates, seen = [], []
    for bad in (True, False):
        weigher = weighed_by(MGDA(static=ONES, gram=SharedHeadGram()), parts, accumulate=2)
        plain = parts.model.project

        def spoiled(pooled: Any, tasks: Any, plain: Any = plain) -> Any:
            features = plain(pooled, tasks)
            factor = torch.ones_like(features.embeddings)
            factor[features.tasks["ocr"].query[0]] = torch.nan
            return features._replace(embeddings=features.embeddings * factor)

        weigher.watch(SharedHeadGram())
        if bad:
            parts.model.project = spoiled  # type: ignore[method-assign]
            assert not parts.model.training_step(batch_of(parts, rows=3), 0)
            parts.model.project = plain  # type: ignore[method-assign]
        parts.model.training_step(batch_of(parts), 1)
        seen.append(weigher.watched())
        updates.append(weigher.after_step(1))
    (after_bad, alone), (products, expected) = updates, seen
    assert products is not None and expected is not None
    assert torch.equal(products.tasks, expected.tasks)
    assert after_bad is not None and alone is not None
    assert after_bad.counts == alone.counts == dict.fromkeys(TASKS, 4)
    assert after_bad.new == pytest.approx(alone.new) and after_bad.new != after_bad.old
    assert set(after_bad.notes.values()) == {"1 not finite"} and not alone.notes


@pytest.mark.parametrize("accumulate", [1, 3])
def test_hooks_come_after_micro_batches_and_steps(parts: Parts, accumulate: int) -> None:
    calls = []

    class Hooks(StepCallback):
        def after_micro_batch(self, trainer: Any, module: Any) -> None:
            calls.append("micro-batch")

        def after_step(self, trainer: Any, module: Any) -> None:
            calls.append("step")

    trainer: Any = SimpleNamespace(accumulate_grad_batches=accumulate)
    for index in range(2 * accumulate):
        Hooks().on_train_batch_end(trainer, parts.model, None, None, index)
    assert calls == (["micro-batch"] * accumulate + ["step"]) * 2
