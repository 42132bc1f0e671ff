"""Takes over the weights of another run, also one with other tasks."""

import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyqwen.checkpoints.sidecar import sidecar_path, verified
from polyqwen.models.tuning.merging import as_adapted
from polyqwen.training.module import EmbeddingModule

log = logging.getLogger(__name__)


def load_weights(model: EmbeddingModule, checkpoint: str | Path) -> None:
    """Takes over the trained parts of another run: encoder, pooling, projection, losses' heads.

    A task that the other run did not have keeps the head and the prefix that it was drawn with, and
    so it is said.

    Raises:
        ValueError: for a missing file or weights of another architecture.
    """
    saved = read_state(checkpoint)
    state = saved["state_dict"]
    _take_prefixes(model, state, saved.get("prefixes"))
    parts: dict[str, nn.Module] = {
        name: getattr(model, name) for name in ("encoder", "pooling", "projection")
    }
    parts |= {f"losses.{task}": loss for task, loss in model.losses.items() if loss.state_dict()}
    take_parts(parts, state, checkpoint)


def checkpoint_path(run_dir: Path, name: str) -> Path:
    """``last``, ``best`` or a path as the file it means; ValueError if it is not there."""
    folder = run_dir / "checkpoints"
    path = folder / f"{name}.ckpt" if name in ("last", "best") else Path(name)
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in folder.glob("*.ckpt"))) or "none"
        raise ValueError(f"there is no checkpoint {path}; the run has {there}")
    return path


def read_state(checkpoint: str | Path) -> dict[str, Any]:
    """A checkpoint's content, with ``state_dict``; ValueError if it is missing or damaged."""
    if not Path(checkpoint).is_file():
        raise ValueError(f"there is no checkpoint {checkpoint}")
    if sidecar_path(Path(checkpoint)).exists():
        verified(Path(checkpoint))
    else:
        log.warning("%s has no sidecar: whether it is what was saved is not known", checkpoint)
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        saved["state_dict"].keys()
    except (RuntimeError, UnpicklingError, KeyError, TypeError, EOFError) as error:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of a run, or is damaged: {str(error)[:100]}"
        ) from error
    return cast(dict[str, Any], saved)


def take_parts(
    parts: Mapping[str, nn.Module], state: Mapping[str, Tensor], checkpoint: str | Path
) -> None:
    """Loads the weights under each part's name, all of them; a loss may have none.

    Raises:
        ValueError: they are of another architecture.
    """
    for part, module in parts.items():
        own = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        if not own and part.startswith("losses."):
            log.info("%s has no %s: it starts afresh", checkpoint, part)
            continue
        try:
            module.load_state_dict(as_adapted(module, own), strict=True)
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip()
            raise ValueError(
                f"{checkpoint} does not fit this model's {part}: {detail}; use the configuration "
                "that it was trained with"
            ) from error


def _take_prefixes(
    model: EmbeddingModule, state: dict[str, Tensor], theirs: Mapping[str, int] | None
) -> None:
    """Puts the rows of the other run's prefixes where this run has them, in its table's size.

    Prefixes are the last rows of the table of embeddings, in the order of the tasks.
    """
    ours = model.prefixes
    if theirs is None or theirs == ours:  # runs of before did not tell
        return
    encoder = cast(nn.Module, model.encoder)
    network = next(m for m in encoder.modules() if isinstance(m, PreTrainedModel))
    table = cast(nn.Embedding, network.get_input_embeddings()).weight
    (name,) = (n for n, p in model.named_parameters() if p is table)
    first = min([*ours.values(), len(table)])
    if name not in state or min([*theirs.values(), len(state[name])]) != first:
        return  # another tokenizer: the shapes will speak
    rows = table.detach().clone().to(state[name])
    rows[:first] = state[name][:first]
    for prefix, place in ours.items():
        if prefix in theirs:
            rows[place] = state[name][theirs[prefix]]
        else:
            log.info("the other run has no prefix %s: it starts afresh", prefix)
    state[name] = rows
