"""Any Hugging Face text model as an encoder, with the same interface as the multimodal ones."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from polyqwen.models.encoder import Chunk, Images
from polyqwen.models.loading import Vocabulary, grow_vocabulary, load_pretrained
from polyqwen.models.memory.layers import LayeredEncoder, compile_blocks, recomputable
from polyqwen.models.packing import PACKED, PackedChunk

# output projections of the blocks of BERT's and of Llama's kin
RESIDUAL_OUTPUTS = ("output.dense.weight", "o_proj.weight", "down_proj.weight")
# they count positions from 0 and hand what they are given on to their attention
PACKABLE = ("bert", "llama", "qwen2", "qwen3")


class TextEncoder(LayeredEncoder):
    """Texts to hidden states with a bidirectional or causal text model (BERT, BGE, Qwen3, …).

    Args:
        model: the Hugging Face model.
        vocabulary: sizes and special ids of the tokenizer.
        compile: compile the blocks of the model; see `compile_blocks`.

    Raises:
        ValueError: packed attention with a kind of model that is not known to be right with it.
    """

    def __init__(
        self, model: PreTrainedModel, *, vocabulary: Vocabulary, compile: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.packs = model.config._attn_implementation == PACKED
        if self.packs and model.config.model_type not in PACKABLE:
            raise ValueError(
                f"model.encoder.attention=packed is made for {', '.join(PACKABLE)}, and this is a "
                f"{model.config.model_type}; use attention=sdpa"
            )
        if getattr(model, "pooler", None) is not None:
            # BERT's own pooler is never used; its weights would get no gradient
            model.register_module("pooler", None)
        grow_vocabulary(model, vocabulary)
        if compile:
            compile_blocks(recomputable(model))

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        attention: str = "sdpa",
        compile: bool = False,
        vocabulary: Vocabulary,
    ) -> "TextEncoder":
        """Weights of a hub id or a folder; BERT's unused pooler may be absent or left over."""
        model = load_pretrained(
            AutoModel,
            name,
            revision=revision,
            ignore=("pooler", "embeddings.position_ids", "cls."),
            dtype=torch.float32,
            attn_implementation=attention,
        )
        return cls(model, vocabulary=vocabulary, compile=compile)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        *,
        attention: str = "sdpa",
        compile: bool = False,
        residual_init: float = 1.0,
        vocabulary: Vocabulary,
    ) -> "TextEncoder":
        """Random weights from a transformers configuration (``model_type`` and its sizes).

        ``residual_init`` scales the drawn weights of every block's output projections; with 0 each
        block starts as the identity (up to its norms), and the encoder as a bag of words.

        Raises:
            ValueError: another ``residual_init`` than 1 for a model without such projections.
        """
        full = AutoConfig.for_model(
            **{**config, "vocab_size": vocabulary.size, "attn_implementation": attention}
        )
        model = AutoModel.from_config(full)
        outputs = [p for n, p in model.named_parameters() if n.endswith(RESIDUAL_OUTPUTS)]
        if residual_init != 1.0 and not outputs:
            raise ValueError(
                f"model.encoder.residual_init={residual_init}: no output projections are known of "
                f"{config['model_type']}; leave it at 1"
            )
        with torch.no_grad():
            for parameter in outputs:
                parameter.mul_(residual_init)
        return cls(model, vocabulary=vocabulary, compile=compile)

    def encode_images(self, images: Images | None) -> Tensor | None:
        """None; refuses pictures, which a text model cannot read."""
        if images is None:
            return None
        raise ValueError(
            f"this batch has {len(images.grid)} pictures, but model.encoder is a text model; "
            "choose tasks without pictures (task=[text_pair]) or a multimodal model (model=tiny)"
        )

    def forward(self, chunk: Chunk, visual: Tensor | None = None) -> Tensor:
        """Hidden states (B, L, H); those at padding are meaningless."""
        if self.packs:
            packed = PackedChunk(chunk)
            hidden = self.model(
                input_ids=packed.ids, position_ids=packed.positions[0], packing=packed.packing
            ).last_hidden_state
            return packed.pad(hidden)
        return self.model(input_ids=chunk.ids, attention_mask=chunk.mask.long()).last_hidden_state
