"""W6: steps of W1 divided among K tasks, weighed by static weights, by losses, by gradients."""

from functools import partial
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from benchmarks.suite.runner import Step
from benchmarks.suite.workloads import collator, pairs
from polyqwen.models.loading import Vocabulary
from polyqwen.training.task_weigher import TaskWeigher
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_gradient.mgda import MGDA
from polyqwen.weighting.by_loss.dwa import DynamicWeightAverage
from polyqwen.weighting.by_loss.static import StaticWeighting
from polyqwen.weighting.gram import SharedHeadGram


def weighting_steps(setting: Any, count: int) -> dict[str, Step]:
    """Whole steps of one model under each weighting.

    Args:
        setting: of the run: ``module``, ``device``, ``chunk_tokens``, ``sizes``, ``count``.
        count: K, tasks of the batch.
    """
    names = tuple(f"task_{i}" for i in range(count))
    ones = dict.fromkeys(names, 1.0)
    strategies: dict[str, Weighting] = {
        "static": StaticWeighting(ones),
        "static again": StaticWeighting(ones),
        "dwa": DynamicWeightAverage(ones, eval_steps=1),
        "mgda": MGDA(static=ones, gram=SharedHeadGram()),
    }
    make = collator(setting.chunk_tokens, names)
    setting.vocabulary = Vocabulary(
        max(setting.vocabulary.size, make.tokens.vocabulary.size), (), make.tokens.image_id
    )
    module = setting.module(weighting=strategies["static"])
    optimizer = module.configure_optimizers()["optimizer"]
    rows = pairs("W1", setting.count, setting.sizes, tasks=names)
    batch = move_data_to_device(make(rows), setting.device)
    for weighting in strategies.values():
        weighting.bind(dict.fromkeys(names, 0.0))
        weighting.to(setting.device)
    return {key: partial(_step, module, w, batch, optimizer) for key, w in strategies.items()}


def _step(module: Any, weighting: Weighting, batch: Any, optimizer: torch.optim.Optimizer) -> None:
    module.weigher = TaskWeigher(module, weighting, module.step_losses)
    optimizer.zero_grad(set_to_none=True)
    module.training_step(batch, 0).backward()
    optimizer.step()
    if weighting.lag:
        module.weigher.update(module.step)
