"""The Qwen-VL models as encoders of texts and pictures: a wrapper around Hugging Face's."""

from contextlib import nullcontext
from typing import Any, ClassVar, Required, Self, TypedDict, Unpack

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from polyqwen.models.encoder import Chunk, Images
from polyqwen.models.loading import Vocabulary, grow_vocabulary, load_pretrained
from polyqwen.models.memory.layers import LayeredEncoder, compile_blocks, recomputable
from polyqwen.models.packing import PACKED, PackedChunk, Packing
from polyqwen.models.vision.feature_cache import VisionCache
from polyqwen.models.vision.patch_embedding import check_patch_size
from polyqwen.models.vision.tower import Tower

# output projections of the blocks: attention and MLP, of the language model and the vision tower
RESIDUAL_OUTPUTS = (
    *("o_proj.weight", "down_proj.weight", "attn.proj.weight"),
    *("mlp.fc2.weight", "mlp.linear_fc2.weight"),
)


class SharedArguments(TypedDict, total=False):
    """Arguments of `QwenVLEncoder` that its other constructors hand on."""

    vocabulary: Required[Vocabulary]
    compile: bool
    vision_cache: str | None


class QwenVLEncoder(LayeredEncoder):
    """Texts and pictures to hidden states, without a language-model head.

    What the models have in common. A subclass names the Hugging Face classes and the parts of its
    vision tower; it adds no code.

    Args:
        model: the Hugging Face model.
        freeze_vision: keep the vision tower as it is and run it without a graph.
        vocabulary: sizes and special ids of the tokenizer.
        compile: compile the blocks of the language model; see `compile_blocks`.
        vision_cache: folder that keeps what a frozen tower saw; see `VisionCache`.

    Attributes:
        model_class: of transformers.
        config_class: of transformers.
        tower: how the vision tower is run.

    Raises:
        ValueError: a cache for a tower that is trained.
    """

    model_class: ClassVar[Any]
    config_class: ClassVar[Any]
    tower: ClassVar[Tower]

    def __init__(
        self,
        model: Any,
        *,
        freeze_vision: bool,
        vocabulary: Vocabulary,
        compile: bool = False,
        vision_cache: str | None = None,
    ) -> None:
        super().__init__()
        if vision_cache is not None and not freeze_vision:
            raise ValueError(
                f"model.encoder.vision_cache={vision_cache} keeps what a frozen tower saw, but the "
                "tower is trained; set freeze_vision=true or vision_cache=null"
            )
        self.model = model
        self.freeze_vision = freeze_vision
        self.packs = model.language_model.config._attn_implementation == PACKED
        self._own_vision = model.visual.config._attn_implementation in ("sdpa", PACKED)
        self.tower.take_over(model.visual, self._own_vision)
        grow_vocabulary(model, vocabulary)
        if freeze_vision:
            model.visual.requires_grad_(False).eval()
        self._cache: VisionCache | None = None
        if vision_cache is not None:
            merge = model.visual.config.spatial_merge_size
            self._cache = VisionCache(vision_cache, model.visual, merge)
        if compile:
            compile_blocks(recomputable(self.text_model))

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        attention: str = "sdpa",
        freeze_vision: bool = True,
        patch_size: int = 14,
        **shared: Unpack[SharedArguments],
    ) -> Self:
        """Weights of a hub id or a folder; see `load_pretrained` for what is refused.

        Raises:
            ValueError: the checkpoint is of another kind of model, or its patches of another size.
        """
        kind = cls.config_class.get_config_dict(name, revision=revision)[0].get("model_type")
        if kind != cls.config_class.model_type:
            raise ValueError(
                f"model.encoder.name={name} is a {kind}, not a {cls.config_class.model_type}; "
                "choose another model/encoder"
            )
        model = load_pretrained(
            cls.model_class,
            name,
            revision=revision,
            ignore=("lm_head",),
            dtype=torch.float32,
            attn_implementation=attention,
        )
        check_patch_size(patch_size, model.config)
        return cls(model, freeze_vision=freeze_vision, **shared)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        *,
        attention: str = "sdpa",
        freeze_vision: bool = False,
        patch_size: int = 14,
        residual_init: float = 1.0,
        **shared: Unpack[SharedArguments],
    ) -> Self:
        """Random weights from ``text_config`` and ``vision_config`` of the model's configuration.

        ``patch_size`` is what the data cuts pictures into. ``residual_init`` scales the drawn
        weights of every block's output projections; with 0 each block starts as the identity.

        Raises:
            ValueError: for a tokenizer without pictures, or patches of another size.
        """
        vocabulary = shared["vocabulary"]
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
        full = cls.config_class(**settings)
        check_patch_size(patch_size, full)
        model = cls.model_class(full)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(RESIDUAL_OUTPUTS):
                    parameter.mul_(residual_init)
        return cls(model, freeze_vision=freeze_vision, **shared)

    @property
    def text_model(self) -> Any:
        """See `LayeredEncoder.text_model`."""
        return self.model.language_model

    def _layers(self) -> list[GradientCheckpointingLayer]:
        """Layers of the language model, and of a vision tower that is trained."""
        return recomputable(self.text_model if self.freeze_vision else self.model)

    def train(self, mode: bool = True) -> Self:
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
            return self._see(images) if self._cache is None else self._cache(images, self._see)

    def _see(self, images: Images) -> Tensor:
        sizes = images.grid.prod(1)
        lengths = sizes.tolist() if images.lengths is None else images.lengths
        packing = Packing.of(sizes, lengths)
        return self.tower.run(self.model.visual, images, packing, self._own_vision)

    def _blank(self) -> Images:
        """A picture of one visual token."""
        merge = self.model.visual.config.spatial_merge_size
        weight = self.model.visual.patch_embed.proj.weight
        patches = weight.new_zeros(merge**2, weight[0, :, 0].numel(), dtype=torch.uint8)
        return Images(patches, torch.tensor([[1, merge, merge]], device=weight.device))

    def forward(self, chunk: Chunk, visual: Tensor | None) -> Tensor:
        """Hidden states (B, L, H); those at padding are meaningless.

        Padding stands on the right of a causal model, so no real token can see it and no attention
        mask is needed: attention takes its fast causal path. Packed contents have no padding.
        """
        if not self.packs:
            return self._read(chunk.ids, chunk.positions, chunk, visual)
        packed = PackedChunk(chunk)
        hidden = self._read(packed.ids, packed.positions, chunk, visual, packing=packed.packing)
        return packed.pad(hidden)

    def _read(
        self, ids: Tensor, positions: Tensor, chunk: Chunk, visual: Tensor | None, **settings: Any
    ) -> Tensor:
        """Rows of tokens, padded or packed, to hidden states."""
        embedded = self.model.get_input_embeddings()(ids)  # (B, L, H)
        if chunk.visual is not None:
            assert visual is not None, "a chunk refers to pictures, but none were encoded"
            # the tower's last features, then those that go to the first layers of Qwen3-VL
            rows, *deeper = visual[chunk.visual].to(embedded.dtype).split(self.hidden_size, 1)
            if deeper:
                settings["deepstack_visual_embeds"] = deeper  # (V, H) each
                settings["visual_pos_masks"] = ids == self.model.config.image_token_id
            # placeholders first; unlike a mask, this never waits for the device to count them
            other = (ids != self.model.config.image_token_id).flatten().byte()
            places = other.argsort(stable=True)[: len(rows)]  # (V,)
            flat = embedded.flatten(0, 1).index_copy(0, places, rows)
            embedded = flat.view_as(embedded)
        return self.model.language_model(
            inputs_embeds=embedded, position_ids=positions, use_cache=False, **settings
        ).last_hidden_state
