"""Useful arithmetic of a training step, from the contents' lengths alone.

What a step must at least compute: the language model forward and backward over real tokens with
causal attention (three times its forward), the frozen vision tower forward once. Padding,
recomputation and a second pass of the tower are work, but not useful work. Pooling, projection and
the loss are left out (under 0.1 % at 2 billion parameters).
"""

from collections.abc import Iterable
from typing import Any


def text_forward(lengths: Iterable[int], config: dict[str, Any], causal: bool = True) -> float:
    """Operations of the language model's forward pass.

    ``2 P L + c L² h N`` per content of L tokens: P matrix parameters of the layers, h the
    attention's width, N layers, c = 2 with causal attention and 4 with full.

    Args:
        lengths: tokens of each content.
        config: ``text_config``.
        causal: count only the half of the attention that is seen.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    shared = config["num_key_value_heads"] / config["num_attention_heads"]
    matrices = layers * (2 * hidden**2 * (1 + shared) + 3 * hidden * config["intermediate_size"])
    attention = (2 if causal else 4) * hidden * layers
    return float(sum(2 * matrices * n + attention * n**2 for n in lengths))


def vision_forward(
    patches: Iterable[int], config: dict[str, Any], patch: int = 14, merge: int = 2
) -> float:
    """Operations of the vision tower's forward pass, its merger included.

    ``2 (P_b + P_e) n + 4 n² w N + 2 P_m n / merge²`` per picture of n patches: P_b blocks, P_e the
    patch embedding of one frame, P_m merger, w width, N blocks.

    Args:
        patches: of each picture.
        config: ``vision_config``.
        patch: side of a patch in pixels.
        merge: patches along each side of a visual token.
    """
    width, depth = config["embed_dim"], config["depth"]
    blocks = depth * (4 + 2 * config["mlp_ratio"]) * width**2
    embedding = 3 * patch**2 * width
    merged = merge**2 * width
    merger = merged**2 + merged * config["hidden_size"]
    return float(
        sum(
            2 * (blocks + embedding) * n + 4 * width * depth * n**2 + 2 * merger * n / merge**2
            for n in patches
        )
    )


def useful(lengths: Iterable[int], patches: Iterable[int], config: dict[str, Any]) -> float:
    """Operations of one training step that no engine can do without."""
    text, vision = config["text_config"], config["vision_config"]
    return 3 * text_forward(lengths, text) + vision_forward(patches, vision)
