"""Room in the embedding table for the tokens that task prefixes add."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel


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
