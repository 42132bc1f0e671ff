"""Data and model of a run, from its configuration."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig

from polyqwen.build.instantiate import make, make_part, takes, weighting_node
from polyqwen.build.network import build_network
from polyqwen.config.candidate_losses import further_losses
from polyqwen.config.check import resolved
from polyqwen.config.hub_revisions import warn_of_unpinned
from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.step import check_usable


class Parts(NamedTuple):
    """Data and model of a run."""

    data: CurriculumDataModule
    model: EmbeddingModule


def build(cfg: DictConfig) -> Parts:
    """Data module and model; weights are drawn from the global random state."""
    values = resolved(cfg)
    warn_of_unpinned(values)
    check_usable(values["tasks"])
    tasks, tokens, encoder, pooling, projection, separate = build_network(cfg)
    shares = {name: task.share for name, task in tasks.items()}
    curriculum = make_part("curriculum", cfg.curriculum, shares=shares)
    data = make_part(
        *("data", cfg.data), tasks=tasks, tokens=tokens, curriculum=curriculum, separate=separate
    )
    dims, paired = _widths(values)
    model = EmbeddingModule(
        encoder,
        pooling,
        projection,
        losses=build_losses(cfg, projection.output_size),
        weighting=make(weighting_node(values)),
        metrics={
            str(name): make(node, **(dims if name in paired else {}))
            for name, node in cfg.metrics.items()
        },
        optimizer=make_part("optimizer", cfg.optimizer, total_steps=run_steps(cfg)),
        start_step=curriculum.start_step,
        prefixes=tokens.new_tokens,
        large_batch=make(cfg.large_batch) if "large_batch" in cfg else None,
        streams={name: loss.task for name, loss in further_losses(values).items()},
        negatives_from={name: task.negatives_from for name, task in tasks.items()},
    )
    return Parts(data, model)


def build_losses(cfg: DictConfig, size: int) -> dict[str, Any]:
    """The losses by name: each task's own, at its widths, and those of a library.

    Args:
        cfg: the configuration.
        size: D of the embeddings.
    """
    values = resolved(cfg)
    losses: dict[str, Any] = {
        str(name): make_part(f"losses.{name}", node, embedding_size=size)
        for name, node in cfg.losses.items()
    }
    losses |= {name: make(cfg.widths)(losses[name]) for name in _widths(values)[1]}
    further = further_losses(values).items()
    return losses | {name: make(cfg.library[loss.candidate]) for name, loss in further}


def _widths(values: Mapping[str, Any]) -> tuple[dict[str, list[int]], list[str]]:
    """Widths of the embeddings for losses and metrics of pairs, and the tasks that have them."""
    widths = values.get("widths") or {}
    if "dims" not in widths:
        return {}, []
    tasks = [name for name, node in values["metrics"].items() if takes(node["_target_"], "dims")]
    return {"dims": list(widths["dims"])}, tasks


def run_steps(cfg: DictConfig) -> int:
    """Optimizer steps of this run."""
    return int(cfg.curriculum.total_steps - cfg.curriculum.start_step)
