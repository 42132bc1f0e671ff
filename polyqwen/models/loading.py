"""Loading pretrained weights, all of them or an error, and growing their embedding table."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

_SHAPES_ONLY: ContextVar[bool] = ContextVar("shapes only", default=False)


@contextmanager
def shapes_only(kind: AbstractContextManager[Any]) -> Iterator[None]:
    """Within it, models and tensors have shapes and types but no numbers, and take no memory.

    Of a published model its configuration is read, never its weights. Whatever is made within must
    be used within.

    Args:
        kind: ``torch.device("meta")`` to build and count, or a `FakeTensorMode` to compute too, as
            far as nothing asks for a number.
    """
    before = _SHAPES_ONLY.set(True)
    try:
        with kind:
            yield
    finally:
        _SHAPES_ONLY.reset(before)


def load_pretrained(
    model_class: Any,
    name: str,
    *,
    revision: str | None,
    ignore: tuple[str, ...] = (),
    **kwargs: Any,
) -> PreTrainedModel:
    """`from_pretrained` without remote code, refusing partly matched weights.

    A missing key would leave random weights in the model and an unexpected one means that the
    checkpoint is of another architecture; Hugging Face only warns about either.

    Args:
        model_class: a transformers model or auto class.
        name: hub id or folder.
        revision: hub commit, tag or branch; None for folders.
        ignore: beginnings of keys that may be absent or left over (a head that is not used).

    Within `shapes_only` nothing is loaded but the model's configuration.

    Raises:
        ValueError: naming the first missing, unexpected or misshapen keys.
    """
    if _SHAPES_ONLY.get():
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        make = getattr(model_class, "from_config", None) or model_class._from_config
        made: PreTrainedModel = make(config, **kwargs)
        return made
    told = logging.get_verbosity()
    logging.set_verbosity_error()  # its own table of what it left out; what matters is said below
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # a log file would hold a thousand of it
    try:
        model, report = model_class.from_pretrained(
            name, revision=revision, trust_remote_code=False, output_loading_info=True, **kwargs
        )
    finally:
        logging.set_verbosity(told)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(k) for k in report[kind] if not str(k).startswith(ignore))
        if keys:
            raise ValueError(
                f"{name}: {len(keys)} {kind.replace('_', ' ')} for {model_class.__name__}, first "
                f"{', '.join(keys[:3])}; the checkpoint is not of this architecture or is "
                "incomplete"
            )
    return model


class Vocabulary(NamedTuple):
    """What an encoder must know of the tokenizer.

    Attributes:
        size: rows that the embedding table needs, prefixes included.
        new_tokens: ids that no checkpoint has seen.
        image_id: placeholder of one visual token; None if the tokenizer knows no pictures.
    """

    size: int
    new_tokens: tuple[int, ...] = ()
    image_id: int | None = None


@torch.no_grad()
def grow_vocabulary(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Makes the table large enough and starts new tokens' rows at the mean of the others.

    Published tables are often padded beyond their tokenizer; such spare rows were never trained, so
    they are overwritten too.
    """
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    known = min(table.num_embeddings, *(vocabulary.new_tokens or (vocabulary.size,)))
    mean = table.weight[:known].mean(0)
    if vocabulary.size > table.num_embeddings:
        table = model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    if vocabulary.new_tokens:
        table.weight[list(vocabulary.new_tokens)] = mean
