"""Bytes that a token keeps for the backward pass, measured by passes over a few tokens."""

from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from polyqwen.build.network import Network, build_network
from polyqwen.models.encoder import Chunk, Images
from polyqwen.models.loading import shapes_only
from polyqwen.models.memory.plan import saved_bytes

HALF = ("bf16", "16")  # beginnings of trainer.precision with half-precision copies of weights
SMALL = 50_000_000  # parameters up to which a random model is really built
ROWS, SHORT, LONG = 4, 32, 64  # contents of the two passes, and tokens of each


class Kept(NamedTuple):
    """Bytes for the backward pass.

    Attributes:
        token: of a token in the language model.
        visual: of a visual token in a vision tower that is trained; None if that is not known.
    """

    token: float
    visual: float | None


def kept_bytes(cfg: DictConfig, precision: str, parameters: int) -> Kept | None:
    """Builds and measures a small random model; of any other only the shapes.

    Of published weights with adapters or a frozen beginning the whole is measured as if it were
    trained: a little more than they keep. None where shapes alone do not lead through a model.

    Args:
        cfg: the configuration.
        precision: of the run, as Lightning names it.
        parameters: of the model.
    """
    small = parameters <= SMALL and not cfg.model.encoder["_target_"].endswith(".from_pretrained")
    if small:
        return _measured(build_network(cfg), precision, pictures=True)
    whole = cfg.copy()
    whole.model.tuning, whole.model.sharing = None, None
    try:
        with shapes_only(FakeTensorMode()):
            return _measured(build_network(whole), precision, pictures=False)
    except RuntimeError:  # a kernel or a module that needs numbers
        return None


def _measured(network: Network, precision: str, pictures: bool) -> Kept:
    """The difference between two lengths: what a pass keeps once, such as copies of weights, falls
    out.
    """
    encoder, pooling = network.encoder, network.pooling
    parameters = [*encoder.parameters(), *pooling.parameters()]
    encoder.train()

    def encode(chunk: Chunk, visual: Tensor | None) -> Tensor:
        hidden: Tensor = pooling(encoder(chunk, visual), chunk.mask)
        return hidden

    def see(chunk: Chunk, visual: Tensor | None) -> Tensor:
        tokens: Tensor = encoder.encode_images(_picture(chunk.ids.shape[1], encoder))
        return tokens

    with torch.autocast("cpu", torch.bfloat16, enabled=precision.startswith(HALF)):
        short, long = (saved_bytes(encode, _chunk(n), None, parameters) for n in (SHORT, LONG))
        token = (long - short) / (ROWS * (LONG - SHORT))
        if not any(p.requires_grad for n, p in encoder.named_parameters() if ".visual." in n):
            return Kept(token, 0.0)
        if not pictures:
            return Kept(token, None)
        short, long = (saved_bytes(see, _chunk(n), None, parameters) for n in (SHORT, LONG))
        return Kept(token, (long - short) / (LONG - SHORT))


def _chunk(length: int) -> Chunk:
    return Chunk(
        ids=torch.zeros(ROWS, length, dtype=torch.int64),
        mask=torch.ones(ROWS, length, dtype=torch.bool),
        positions=torch.zeros(3, ROWS, length, dtype=torch.int64),
        visual=None,
        task=torch.zeros(ROWS, dtype=torch.int64),
        lengths=[length] * ROWS,
    )


def _picture(tokens: int, encoder: Any) -> Images:
    """A picture of so many visual tokens."""
    tower = getattr(encoder, "encoder", encoder).model.visual  # also inside of adapters
    merge, weight = tower.spatial_merge_size, tower.patch_embed.proj.weight
    patches = weight.new_zeros(tokens * merge**2, weight[0, :, 0].numel(), dtype=torch.uint8)
    return Images(patches, torch.tensor([[1, merge, tokens * merge]]), [len(patches)])
