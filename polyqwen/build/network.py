"""The part of a model that embeds, from its configuration."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig

from polyqwen.build.instantiate import make, make_part
from polyqwen.data.rows.task import Task
from polyqwen.data.tokens import Tokens
from polyqwen.models.encoder import Encoder
from polyqwen.models.tuning.sharing import HardSharing
from polyqwen.models.tuning.strategies import FullTuning


class Network(NamedTuple):
    """What turns texts and pictures into embeddings, and the tasks that it tells apart."""

    tasks: dict[str, Task]
    tokens: Tokens
    encoder: Any
    pooling: Any
    projection: Any
    separate: bool  # a text is encoded once for each of its tasks


def build_network(cfg: DictConfig) -> Network:
    """The parts of the model that embed; weights are drawn from the global random state."""
    tasks = {str(name): make(node) for name, node in cfg.tasks.items()}
    prefixes = {name: task.prefix for name, task in tasks.items()}
    tokens = make_part("model.tokens", cfg.model.tokens, prefixes=prefixes)
    encoder = make_part("model.encoder", cfg.model.encoder, vocabulary=tokens.vocabulary)
    pooling, projection = (
        make_part(f"model.{name}", cfg.model[name], hidden_size=encoder.hidden_size)
        for name in ("pooling", "projection")
    )
    node = cfg.model.get("sharing")  # configurations saved by the first version have none
    sharing: Any = make(node) if node else HardSharing()
    tune(encoder, cfg.model.get("tuning"), sharing, tokens.vocabulary.new_tokens)
    encoder, projection = sharing.apply(encoder, projection, len(tasks))
    return Network(tasks, tokens, encoder, pooling, projection, sharing.separate)


def tune(
    encoder: Encoder, node: DictConfig | None, sharing: HardSharing, new_tokens: Sequence[int]
) -> None:
    """Freezes and adapts the encoder as ``model.tuning`` says; all of it trains without the node.

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
