"""What the encoder's own parts give over Hugging Face's, on the small model and one core.

    python -m benchmarks.kernels [--rounds 15]

The vision tower forward: patches as a matrix product and pictures of one size together, against
Conv3d over two equal frames and attention picture by picture. The language model forward and
backward: without an attention mask (padding stands on the right of a causal model), against with.
Outputs must agree.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2VLModel

from benchmarks.suite.environment import environment
from benchmarks.suite.model import TINY, build
from benchmarks.suite.runner import Step, interleave
from benchmarks.suite.workloads import CPU, collator, pairs
from polyqwen.models.encoder import Chunk, Images
from polyqwen.models.vision.patch_embedding import IMAGE_MEAN, IMAGE_STD

RESULTS = Path(__file__).parent / "results"
PAIRS, WARM, AGREE = 24, 1, 1e-4


def towers(module: Any, images: Images) -> dict[str, Step]:
    """Forward passes of both towers on the same weights and pictures."""
    encoder = module.encoder
    published = Qwen2VLModel(encoder.model.config).visual.eval()
    published.load_state_dict(encoder.model.visual.state_dict())
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    patches = images.patches.unflatten(1, (3, 1, -1))  # (P, 3, 1, patch²)
    frame = (patches / 255.0 - mean) / std
    pixels = frame.expand(-1, -1, 2, -1).flatten(1)  # (P, 3 · 2 · patch²)

    @torch.no_grad()
    def theirs() -> Tensor:
        return published(pixels, grid_thw=images.grid).pooler_output

    own = partial(encoder.encode_images, images)
    torch.testing.assert_close(own(), theirs(), rtol=AGREE, atol=AGREE)
    return {"published": theirs, "ours": own, "ours again": own}


def language_models(module: Any, chunk: Chunk) -> dict[str, Step]:
    """Forward and backward passes over one padded chunk of texts, with and without a mask."""
    model = module.encoder.model

    def run(mask: Tensor | None) -> Tensor:
        embedded = model.get_input_embeddings()(chunk.ids)
        hidden = model.language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=chunk.positions,
            use_cache=False,
        ).last_hidden_state
        real: Tensor = hidden[chunk.mask]
        real.square().mean().backward()
        return real.detach()

    masked = partial(run, chunk.mask.long())
    torch.testing.assert_close(run(None), masked(), rtol=AGREE, atol=AGREE)
    return {"published": masked, "ours": partial(run, None), "ours again": partial(run, None)}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--to", type=Path, default=RESULTS / "kernels.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make = collator(4096)
    module = build(TINY, make.tokens.vocabulary, 128)
    equal, mixed, texts = (make(pairs(name, PAIRS, CPU)) for name in ("W2", "W3", "W1"))
    assert equal.images is not None and mixed.images is not None
    cases = {
        "vision tower, pictures of one size (W2)": towers(module, equal.images),
        "vision tower, pictures of many sizes (W3)": towers(module, mixed.images),
        "language model without a mask (W1)": language_models(module, texts.chunks[-1]),
    }
    device = torch.device("cpu")
    report: dict[str, Any] = {"environment": environment(device)}
    report["cases"] = {
        name: interleave(steps, arguments.rounds, WARM, device) for name, steps in cases.items()
    }
    arguments.to.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, seconds in report["cases"].items():
        print(name, {key: min(times) for key, times in seconds.items()})


if __name__ == "__main__":
    main()
