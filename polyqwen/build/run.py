"""Data and model of a run, from its configuration."""

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
    further = further_losses(values)
    size = projection.output_size
    losses: dict[str, Any] = {
        str(name): make_part(f"losses.{name}", node, embedding_size=size)
        for name, node in cfg.losses.items()
    }
    widths = values.get("widths") or {}  # of the embeddings, for losses and metrics of pairs
    dims = {"dims": list(widths["dims"])} if "dims" in widths else {}
    paired = [str(name) for name, m in cfg.metrics.items() if dims and takes(m["_target_"], "dims")]
    losses |= {name: make(cfg.widths)(losses[name]) for name in paired}
    losses |= {name: make(cfg.library[loss.candidate]) for name, loss in further.items()}
    model = EmbeddingModule(
        encoder,
        pooling,
        projection,
        losses=losses,
        weighting=make(weighting_node(values)),
        metrics={
            str(name): make(node, **(dims if name in paired else {}))
            for name, node in cfg.metrics.items()
        },
        optimizer=make_part("optimizer", cfg.optimizer, total_steps=run_steps(cfg)),
        start_step=curriculum.start_step,
        prefixes=tokens.new_tokens,
        large_batch=make(cfg.large_batch) if "large_batch" in cfg else None,
        streams={name: loss.task for name, loss in further.items()},
        negatives_from={name: task.negatives_from for name, task in tasks.items()},
    )
    return Parts(data, model)


def run_steps(cfg: DictConfig) -> int:
    """Optimizer steps of this run."""
    return int(cfg.curriculum.total_steps - cfg.curriculum.start_step)
