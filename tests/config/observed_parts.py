"""Looks at one part of a run each: what a configuration makes of it, as plain values."""

import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.build.instantiate import make, make_part, weighting_node
from polyqwen.build.run import build, run_steps
from polyqwen.build.trainer import build_trainer
from polyqwen.checkpoints.callbacks.run_record import RunRecord
from polyqwen.data.sampling.shares import AdaptiveSampling
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.losses.types import Pairs
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.training.callbacks.schedules import LossWarmup, ScheduleCallback
from polyqwen.weighting.base import Weighting
from tests.weighting.toy_head import ToyHead

Values = Mapping[str, Any]
ROWS, WIDTH = 12, 16  # of the pairs that losses and metrics are given


def described(value: Any, depth: int = 4) -> Any:
    """An object as its class and attributes, tensors and arrays as lists, functions by name."""
    if isinstance(value, Tensor):
        return value.detach().double().flatten().tolist(), tuple(value.shape)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, str | int | float | bool | Path | torch.dtype):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(inner, depth) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [described(inner, depth) for inner in value]
    if isinstance(value, functools.partial):
        return described([value.func, value.args, value.keywords], depth)
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__qualname__
    if depth == 0 or not hasattr(value, "__dict__"):
        return type(value).__qualname__
    return type(value).__qualname__, described(vars(value), depth - 1)


def of_network(values: Values) -> Any:
    """Weights, which of them are trained; modules' settings; embeddings and loss of some rows."""
    torch.manual_seed(values["seed"])
    parts = build(OmegaConf.create(dict(values)))
    model = parts.model
    weights = {
        n: (float(p.detach().double().sum()), p.requires_grad) for n, p in model.named_parameters()
    }
    for parameter in model.parameters():
        if not parameter.any():  # adapters start without effect
            nn.init.normal_(parameter, std=0.1)
    settings = {
        f"{name}.{key}": value
        for name, module in (("", model.large_batch), *model.named_modules())
        for key, value in vars(module).items()
        if isinstance(value, bool | str | float | int)
    }
    tables = MultiTaskDataset(parts.data.splits.tables("train"))
    batch = parts.data.collator([tables[task, i] for task in model.tasks for i in range(2)])
    with torch.no_grad():
        seen = [model(batch), batch.tasks, model.training_step(batch, 0), model.prefixes]
    return weights, settings, described(seen)


def of_data(values: Values) -> Any:
    """Rows of every step, a batch of all tasks, what is evaluated; where tables are kept."""
    cfg = OmegaConf.create(dict(values))
    data = build(cfg).data
    trainer = {"world_size": 1, "global_rank": 0, "global_step": 0, "max_steps": run_steps(cfg)}
    data.trainer = SimpleNamespace(accumulate_grad_batches=1, **trainer)  # type: ignore[assignment]
    loader = data.train_dataloader()
    micro_batches = list(loader.batch_sampler)  # type: ignore[arg-type]
    sampling = data.train_rows.sampling
    if isinstance(sampling, AdaptiveSampling):
        losses = {task: 1.0 + i for i, task in enumerate(data.tasks)}
        data.train_rows.resample(sampling.window, losses)
        micro_batches += list(loader.batch_sampler)  # type: ignore[arg-type]
    dataset = MultiTaskDataset({task: data.splits.trained(task) for task in data.tasks})
    batch = data.collator(dataset.__getitems__(micro_batches[-1]))
    evaluated = [described(vars(part.batch_sampler)) for part in data.val_dataloader()]
    bad = data.splits.bad_rows
    settings = [
        data.pictures,
        bad if bad.policy == "skip" else "error",
        data.splits.source,
        sampling,
    ]
    kept = [loader.num_workers, data.splits.cache, data.splits.trusted_rows]
    return micro_batches, described(batch), evaluated, described(settings), kept


def pairs(width: int) -> Pairs:
    """Rows as losses get them: with scores, hard negatives, labels and a teacher's vectors."""
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
    near, document = draw(ROWS, width), F.normalize(draw(ROWS, width), dim=-1)
    query = F.normalize(document + 0.3 * near, dim=-1)
    keys = torch.arange(ROWS)
    return Pairs(
        query=query,
        document=document,
        query_key=keys // 2,
        document_key=100 + keys,
        score=(keys % 5) / 4.0,
        negative=F.normalize(draw(6, width), dim=-1),
        negative_key=200 + torch.arange(6),
        negative_row=torch.arange(6) * 2,
        label=keys % 3,
        teacher_query=F.normalize(draw(ROWS, 8), dim=-1),
        teacher_document=F.normalize(draw(ROWS, 8), dim=-1),
    )


def of_losses(values: Values) -> Any:
    """Each loss of fixed pairs, with its components and their gradient."""
    size = values["model"]["projection"].get("output_size") or WIDTH
    torch.manual_seed(0)
    losses = {
        name: make_part(f"losses.{name}", node, embedding_size=size)
        for name, node in values["losses"].items()
    }
    if values.get("widths"):
        losses["text_pair"] = make(values["widths"])(losses["text_pair"])
    losses |= {f"library.{name}": make(x) for name, x in (values.get("library") or {}).items()}
    found = {}
    for name, loss in losses.items():
        given = pairs(size)
        query = given.query.clone().requires_grad_()
        output = loss(given._replace(query=query))
        (gradient,) = torch.autograd.grad(output.total, query)
        found[name] = described([*output, gradient, loss.lower_bound])
    return found


def of_metrics(values: Values) -> Any:
    """Metrics of fixed pairs."""
    given, found = pairs(WIDTH), {}
    for name, node in values["metrics"].items():
        metrics = make(node)
        embedded = {f: getattr(given, f) for f in ("query", "document", "query_key")}
        embedded |= {"document_key": given.document_key, "label": given.label}
        said = torch.where(torch.arange(ROWS) % 4 == 0, 0, given.label)  # some are wrong
        logits = F.one_hot(said, 8).float()
        metrics.update(PairEmbeddings(**embedded, score=given.score, logits=logits))
        found[name] = metrics.compute(), metrics.main
    return described(found)


def of_weighting(values: Values) -> Any:
    """Weights of every step, of a toy whose first phase has one task."""
    torch.manual_seed(0)
    return drawn_weights(
        make(weighting_node(values)), values["total_steps"], values["phase1_steps"]
    )


def drawn_weights(weighting: Weighting, steps: int, alone: int) -> list[list[float]]:
    """Weights by which a toy is trained, which has one task only in the first and last steps.

    The losses of half of the tasks have a chance level.

    Args:
        weighting: the strategy.
        steps: of the toy.
        alone: so many of the first steps, and of the last ones.
    """
    tasks, observe = len(weighting.tasks), weighting.observe
    chance = torch.arange(tasks) % 2 * 2.0
    weighting.observe = lambda losses, counts: observe(losses, counts, chance)  # type: ignore[method-assign, assignment, misc]
    weighting.bind(dict.fromkeys(weighting.tasks, 0.0))
    lone = [step for step in range(steps) if not alone <= step < steps - alone]
    absent = {step: set(range(1, tasks)) for step in lone}
    toy = ToyHead([3.0 * 0.6**i for i in range(tasks)], absent)
    drawn = [toy.step(weighting, step).tolist() for step in range(steps)]
    return [row[:1] if step in lone else row for step, row in enumerate(drawn)]


def of_optimizer(values: Values) -> Any:
    """Groups, and the rates of every step."""
    torch.manual_seed(0)
    backbone, head = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), nn.Linear(2, 2)
    steps = values["curriculum"]["total_steps"] - values["curriculum"].get("start_step", 0)
    made = make_part("optimizer", values["optimizer"], total_steps=steps)(backbone, head)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    kept = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    return rates, described(kept)


def of_callbacks(values: Values) -> Any:
    """Attributes of the callbacks; of schedules the values of every step."""
    size = values["model"]["projection"].get("output_size") or WIDTH
    losses = {
        name: make_part(f"losses.{name}", node, embedding_size=size)
        for name, node in values["losses"].items()
    }
    found = {}
    for name, node in values["callbacks"].items():
        if node is None:
            continue
        shown = {"configuration": "", "hyperparameters": {}} if name == "dashboard" else {}
        callback = make_part(f"callbacks.{name}", node, **shown)
        found[name] = described(callback)
        if isinstance(callback, ScheduleCallback):
            if isinstance(callback, LossWarmup):
                callback.configured = callback.targets(losses)
            module = SimpleNamespace(losses=losses, boost=dict.fromkeys(losses, 1.0))
            found[name] = _scheduled(callback, module, values["total_steps"])
    return found


def _scheduled(callback: ScheduleCallback, module: Any, steps: int) -> list[dict[str, float]]:
    values = []
    for step in range(steps):
        module.step = step
        logged = callback.apply(SimpleNamespace(), module)  # type: ignore[arg-type]
        name = getattr(callback, "attribute", "")
        values.append(logged | {t: getattr(x, name, 0.0) for t, x in module.losses.items()})
    return values


def of_trainer(values: Values) -> Any:
    """What of the trainer a run depends on, and the files that loggers write to."""
    before = torch.are_deterministic_algorithms_enabled()
    trainer = build_trainer(OmegaConf.create(dict(values)))
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before)
    record = next(c for c in trainer.callbacks if isinstance(c, RunRecord))  # type: ignore[attr-defined]
    names = ("max_steps", "val_check_interval", "accumulate_grad_batches", "num_nodes")
    names += ("num_devices", "gradient_clip_val", "precision", "default_root_dir")
    return described(
        [
            {name: getattr(trainer, name) for name in names},
            [type(callback) for callback in trainer.callbacks],  # type: ignore[attr-defined]
            type(trainer.strategy),
            deterministic,
            record.allow_data,
            [vars(logger) for logger in trainer.loggers],
        ]
    )
