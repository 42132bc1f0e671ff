"""Builds the parts of a run from its configuration."""

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from omegaconf import DictConfig, OmegaConf

from polyqwen.build.fsdp_check import check_sharding
from polyqwen.build.processes import device_count, launched_outside
from polyqwen.checkpoints.callbacks.interruption import SaveWhenInterrupted
from polyqwen.checkpoints.callbacks.run_record import RunRecord
from polyqwen.checkpoints.checkpoint_io import VerifiedCheckpoints
from polyqwen.config.candidate_losses import further_losses, weighting_node
from polyqwen.config.check import resolved
from polyqwen.config.hub_revisions import warn_of_unpinned
from polyqwen.config.identity import flat_settings, hyperparameters, run_settings
from polyqwen.config.signatures import signature_of
from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.data.rows.task import Task
from polyqwen.data.tokens import Tokens
from polyqwen.models.encoder import Encoder
from polyqwen.models.tuning.sharing import HardSharing
from polyqwen.models.tuning.strategies import FullTuning
from polyqwen.training.callbacks.rank_agreement import RankAgreement
from polyqwen.training.callbacks.resume import DueValidation, RandomState
from polyqwen.training.fsdp import WholeInEvaluation
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.step import check_usable

log = logging.getLogger(__name__)


class Network(NamedTuple):
    """What turns texts and pictures into embeddings, and the tasks that it tells apart."""

    tasks: dict[str, Task]
    tokens: Tokens
    encoder: Any
    pooling: Any
    projection: Any
    separate: bool  # a text is encoded once for each of its tasks


class Parts(NamedTuple):
    """Data and model of a run."""

    data: CurriculumDataModule
    model: EmbeddingModule


def make(node: DictConfig | dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """`instantiate` with plain lists and dicts: no class of ours ever sees a configuration."""
    return instantiate(node, *args, _convert_="all", **kwargs)


def build_network(cfg: DictConfig) -> Network:
    """The parts of the model that embed; weights are drawn from the global random state."""
    tasks = {str(name): make(node) for name, node in cfg.tasks.items()}
    tokens = make(cfg.model.tokens, prefixes={name: task.prefix for name, task in tasks.items()})
    encoder = make(cfg.model.encoder, vocabulary=tokens.vocabulary)
    pooling = make(cfg.model.pooling, encoder.hidden_size)
    projection = make(cfg.model.projection, encoder.hidden_size)
    node = cfg.model.get("sharing")  # runs of before had hard sharing alone
    sharing: Any = make(node) if node else HardSharing()
    tune(encoder, cfg.model.get("tuning"), sharing, tokens.vocabulary.new_tokens)
    encoder, projection = sharing.apply(encoder, projection, len(tasks))
    return Network(tasks, tokens, encoder, pooling, projection, sharing.separate)


def build(cfg: DictConfig) -> Parts:
    """Data module and model; weights are drawn from the global random state."""
    values = resolved(cfg)
    warn_of_unpinned(values)
    check_usable(values["tasks"])
    tasks, tokens, encoder, pooling, projection, separate = build_network(cfg)
    curriculum = make(cfg.curriculum, {name: task.share for name, task in tasks.items()})
    data = make(cfg.data, tasks=tasks, tokens=tokens, curriculum=curriculum, separate=separate)
    further = further_losses(values)
    losses = {
        name: make(node, **of_embedding(node["_target_"], projection.output_size))
        for name, node in cfg.losses.items()
    }
    widths = values.get("widths") or {}  # runs of before have no such key
    paired = [name for name, node in cfg.metrics.items() if at_widths(node["_target_"], widths)]
    losses |= {name: make(cfg.widths)(losses[name]) for name in paired}
    losses |= {name: make(cfg.library[loss.candidate]) for name, loss in further.items()}
    model = EmbeddingModule(
        encoder,
        pooling,
        projection,
        losses=losses,
        weighting=make(weighting_node(values)),
        metrics={
            name: make(node, **at_widths(node["_target_"], widths))
            for name, node in cfg.metrics.items()
        },
        optimizer=partial(make(cfg.optimizer), total_steps=run_steps(cfg)),
        start_step=curriculum.start_step,
        prefixes=tokens.new_tokens,
        large_batch=make(cfg.large_batch) if "large_batch" in cfg else None,
        streams={name: loss.task for name, loss in further.items()},
    )
    return Parts(data, model)


def tune(
    encoder: Encoder, node: DictConfig | None, sharing: HardSharing, new_tokens: Sequence[int]
) -> None:
    """Freezes and adapts the encoder as ``model.tuning`` says; runs of before had no such node.

    Raises:
        ValueError: two kinds of adapters at once.
    """
    tuning: Any = make(node) if node else FullTuning()
    if sharing.separate and not tuning.full:
        raise ValueError(
            "model/sharing=adapters and another model/tuning than full do not go together; "
            "choose one of them"
        )
    tuning.apply(encoder, new_tokens)


def of_embedding(target: str, size: int) -> dict[str, int]:
    """What a loss with a part of its own is told: the size of the embeddings it reads."""
    wanted = "embedding_size" in signature_of(target).parameters
    return {"embedding_size": size} if wanted else {}


def at_widths(target: str, widths: Mapping[str, Any]) -> dict[str, list[int]]:
    """What metrics of pairs are told where losses read several widths of the embeddings."""
    wanted = "dims" in signature_of(target).parameters
    return {"dims": list(widths["dims"])} if wanted and "dims" in widths else {}


def run_steps(cfg: DictConfig) -> int:
    """Optimizer steps of this run."""
    return int(cfg.curriculum.total_steps - cfg.curriculum.start_step)


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """The trainer with callbacks and loggers; several processes are joined by DDP."""
    steps = run_steps(cfg)
    every = min(cfg.validate_every, steps)
    precision = cfg.trainer.precision
    if precision == "auto":
        cuda = torch.cuda.is_available() and cfg.trainer.accelerator in ("auto", "gpu", "cuda")
        precision = "bf16-mixed" if cuda else "32-true"
    sharded = cfg.trainer.strategy == "fsdp"
    trainer: pl.Trainer = make(
        cfg.trainer,
        strategy=_strategy(cfg),
        inference_mode=not sharded,  # weights gathered in it could not be trained on later
        precision=precision,
        max_steps=steps,
        # Lightning counts loader batches here, not optimizer steps
        val_check_interval=every * cfg.trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        default_root_dir=cfg.run_dir,
        callbacks=build_callbacks(cfg),
        logger=[make(node) for node in cfg.logger.values() if node],
        plugins=[VerifiedCheckpoints()],
    )
    # its handler of SIGTERM would hold a collective at any moment, on the ranks that were told
    cast(Any, trainer)._signal_connector.register_signal_handlers = lambda: None
    return trainer


def _strategy(cfg: DictConfig) -> Any:
    """How the processes of a run are joined."""
    limit = timedelta(seconds=cfg.process_group_timeout)
    if cfg.trainer.strategy == "fsdp":
        check_sharding(resolved(cfg))
        return ModelParallelStrategy(
            data_parallel_size=int(os.environ["WORLD_SIZE"]),
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=limit,
        )
    if cfg.trainer.strategy == "auto" and launched_outside():
        # Buffers are equal on all ranks by construction; copying rank 0's would hide it if not.
        return DDPStrategy(broadcast_buffers=False, timeout=limit, gradient_as_bucket_view=True)
    return cfg.trainer.strategy


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """All callbacks; the dashboard is told what the run was given."""
    told = {
        "dashboard": {
            "configuration": OmegaConf.to_yaml(cfg, resolve=True),
            "hyperparameters": hyperparameters(cfg),
        }
    }
    nodes = [(name, node) for name, node in cfg.callbacks.items() if node]
    settings = [f"{key} = {value!r}" for key, value in flat_settings(cfg).items()]
    processes = device_count(cfg) * cfg.trainer.num_nodes
    return [
        RankAgreement(settings),
        RunRecord(run_settings(cfg, processes), allow_data="data" in cfg.resume_allow),
        RandomState(cfg.seed),
        DueValidation(),
        *([WholeInEvaluation()] if cfg.trainer.strategy == "fsdp" else []),
        *(make(node, **told.get(str(name), {})) for name, node in nodes),
        SaveWhenInterrupted(Path(cfg.run_dir) / "checkpoints"),
    ]
