"""Qwen2-VL as an encoder of texts and pictures: a wrapper around the Hugging Face model."""

from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2VLConfig, Qwen2VLModel
from transformers.modeling_layers import GradientCheckpointingLayer

from polyqwen.models.inputs import Chunk, Images
from polyqwen.models.layer_checkpointing import recomputable, recompute
from polyqwen.models.loading import load_pretrained
from polyqwen.models.vision_attention import GroupedVisionAttention
from polyqwen.models.vocabulary import Vocabulary, grow_vocabulary

# mean and standard deviation of CLIP's training pictures, as in Qwen2-VL's processor
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
# output projections of the blocks: attention and MLP, of the language model and the vision tower
RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.fc2.weight")


class PatchEmbedding(nn.Module):
    """Qwen2-VL's patch embedding on uint8 patches of one frame, as a matrix product.

    The convolution's stride equals its kernel, so it is a matrix product, and a CPU runs that
    several times faster than Conv3d. A still picture repeats its frame, so the kernel may be summed
    over time. The parameter keeps its name and shape (``proj.weight``): checkpoints load unchanged.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.proj = convolution
        pixels = convolution.kernel_size[1] * convolution.kernel_size[2]
        for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
            channels = torch.tensor(values).repeat_interleave(pixels) * 255.0
            self.register_buffer(name, channels, persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """(P, 3 · patch²) uint8 -> (P, vision width)."""
        weight = self.proj.weight.sum(2).flatten(1)  # (width, 3 · patch²)
        return F.linear(((patches - self.mean) / self.std).to(weight.dtype), weight)


class Qwen2VLEncoder(nn.Module):
    """Texts and pictures to hidden states with `Qwen2VLModel` (no language-model head).

    Args:
        model: the Hugging Face model.
        freeze_vision: keep the vision tower as it is and run it without a graph.
        vocabulary: sizes and special ids of the tokenizer.
    """

    def __init__(self, model: Qwen2VLModel, *, freeze_vision: bool, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.model = model
        self.freeze_vision = freeze_vision
        model.visual.patch_embed = PatchEmbedding(model.visual.patch_embed.proj)
        if model.visual.config._attn_implementation == "sdpa":
            for block in model.visual.blocks:
                block.attn = GroupedVisionAttention(block.attn)
        grow_vocabulary(model, vocabulary)
        if freeze_vision:
            model.visual.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        attention: str = "sdpa",
        freeze_vision: bool = True,
        vocabulary: Vocabulary,
    ) -> "Qwen2VLEncoder":
        """Weights of a hub id or a folder; see `load_pretrained` for what is refused."""
        model = load_pretrained(
            Qwen2VLModel,
            name,
            revision=revision,
            ignore=("lm_head",),
            dtype=torch.float32,
            attn_implementation=attention,
        )
        return cls(cast(Qwen2VLModel, model), freeze_vision=freeze_vision, vocabulary=vocabulary)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        *,
        attention: str = "sdpa",
        freeze_vision: bool = False,
        residual_init: float = 1.0,
        vocabulary: Vocabulary,
    ) -> "Qwen2VLEncoder":
        """Random weights from ``text_config`` and ``vision_config`` of `Qwen2VLConfig`.

        ``residual_init`` scales the drawn weights of every block's output projections; with 0 each
        block starts as the identity.

        Raises:
            ValueError: for a tokenizer without pictures.
        """
        if vocabulary.image_id is None:
            raise ValueError(
                "model.encoder reads pictures, but the tokenizer has no <|image_pad|>; choose "
                "another model.tokens.tokenizer or a text model"
            )
        text = {**config["text_config"], "vocab_size": vocabulary.size}
        settings: dict[str, Any] = {
            "text_config": {**text, "bos_token_id": None, "eos_token_id": None},
            "vision_config": config["vision_config"],
            "image_token_id": vocabulary.image_id,
            "attn_implementation": attention,
        }
        model = Qwen2VLModel(Qwen2VLConfig(**settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(RESIDUAL_OUTPUTS):
                    parameter.mul_(residual_init)
        return cls(model, freeze_vision=freeze_vision, vocabulary=vocabulary)

    @property
    def hidden_size(self) -> int:
        """H, width of the hidden states."""
        return int(self.model.language_model.config.hidden_size)

    @property
    def recomputable_layers(self) -> int:
        """Layers of the language model, and of a vision tower that is trained."""
        return len(self._layers())

    def recompute_layers(self, on: bool) -> None:
        """See `Encoder.recompute_layers`."""
        recompute(self._layers(), on)

    def _layers(self) -> list[GradientCheckpointingLayer]:
        return recomputable(self.model.language_model if self.freeze_vision else self.model)

    def train(self, mode: bool = True) -> "Qwen2VLEncoder":
        """A frozen vision tower stays in evaluation mode."""
        super().train(mode)
        if self.freeze_vision:
            self.model.visual.eval()
        return self

    def encode_images(self, images: Images | None) -> Tensor | None:
        """The pictures of a batch to visual tokens, one row each: (V, H); see `Encoder`."""
        if images is None:
            if self.freeze_vision or not torch.is_grad_enabled():
                return None
            images = self._blank()
        with torch.no_grad() if self.freeze_vision else nullcontext():
            return self.model.visual(images.patches, grid_thw=images.grid).pooler_output

    def _blank(self) -> Images:
        """A picture of one visual token."""
        merge = self.model.visual.config.spatial_merge_size
        weight = self.model.visual.patch_embed.proj.weight
        patches = weight.new_zeros(merge**2, weight[0, :, 0].numel(), dtype=torch.uint8)
        return Images(patches, torch.tensor([[1, merge, merge]], device=weight.device))

    def forward(self, chunk: Chunk, visual: Tensor | None) -> Tensor:
        """Hidden states (B, L, H); those at padding are meaningless.

        Padding stands on the right of a causal model, so no real token can see it and no attention
        mask is needed: attention takes its fast causal path.
        """
        embedded = self.model.get_input_embeddings()(chunk.ids)  # (B, L, H)
        if chunk.visual is not None:
            assert visual is not None, "a chunk refers to pictures, but none were encoded"
            places = (chunk.ids == self.model.config.image_token_id)[..., None]  # (B, L, 1)
            rows = visual[chunk.visual].to(embedded.dtype)
            embedded = embedded.masked_scatter(places, rows)
        return self.model.language_model(
            inputs_embeds=embedded, position_ids=chunk.positions, use_cache=False
        ).last_hidden_state
