"""Other engines for large contrastive batches, on the same model and the same contents.

Plain torch: one forward pass per column. GradCache: Gao, Zhang, Han & Callan 2021, arXiv
2101.06983, in its authors' package. sentence-transformers: its cached in-batch-negatives loss.
Both packages are in `benchmarks/requirements.txt` and imported only when an arm needs them.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.suite.columns import Features, SentenceEncoder, part
from benchmarks.suite.model import TEMPERATURE

Backward = Callable[[], object]  # adds a batch's gradient to the parameters


def contrast(queries: Tensor, documents: Tensor) -> Tensor:
    """Cross entropy of each query's own document."""
    logits = queries @ documents.T / TEMPERATURE  # (B, B)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def plain(model: SentenceEncoder, data: list[Features]) -> Backward:
    """One forward pass per column; everything is kept for the backward pass."""

    def backward() -> None:
        contrast(*(model(column)["sentence_embedding"] for column in data)).backward()

    return backward


def plain_checkpoint(model: SentenceEncoder, data: list[Features]) -> Backward:
    """The same with every layer of the language model recomputed in the backward pass."""
    layers = model.encoder.model.language_model.layers  # type: ignore[union-attr]

    def backward() -> None:
        own = [layer.forward for layer in layers]
        try:
            for layer in layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
            contrast(*(model(column)["sentence_embedding"] for column in data)).backward()
        finally:
            for layer, forward in zip(layers, own, strict=True):
                layer.forward = forward

    return backward


def grad_cache(model: SentenceEncoder, data: list[Features], chunk: int) -> Backward:
    """GradCache's own engine; chunks of ``chunk`` contents, each padded to its longest."""
    import gradcache

    # the package was renamed and still imports itself by its old name
    sys.modules.setdefault("grad_cache", gradcache)
    from gradcache.grad_cache import GradCache

    def split(features: Features, size: int) -> list[Features]:
        count = len(features["input_ids"])
        return [part(features, begin, begin + size) for begin in range(0, count, size)]

    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **features: Tensor) -> Tensor:
            return self.model(features)["sentence_embedding"]

    encoder = ByKeyword()
    engine = GradCache([encoder, encoder], chunk, contrast, split_input_fn=split)
    return lambda: engine(*data)


def sentence_transformers(
    model: SentenceEncoder, data: list[Features], size: int = 32, tokens: int | None = None
) -> Backward:
    """`CachedMultipleNegativesRankingLoss`; it trims the padding of its mini-batches itself.

    Args:
        model: the encoder.
        data: queries and documents.
        size: ``mini_batch_size``.
        tokens: ``mini_batch_num_tokens``, which takes the size's place if given.
    """
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    own: Any = nn.Sequential(model)
    loss = CachedMultipleNegativesRankingLoss(
        own, scale=1.0 / TEMPERATURE, mini_batch_size=size, mini_batch_num_tokens=tokens
    )
    labels = torch.zeros(0)
    return lambda: loss([dict(column) for column in data], labels).backward()
