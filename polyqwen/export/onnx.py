"""The text side of a model as an ONNX graph: ids and mask to unit vectors."""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.export.folder import exportable
from polyqwen.inference.model import EmbeddingModel

FILE = Path("onnx") / "model.onnx"
NEEDS = ("onnx", "onnxscript")


class TextPath(nn.Module):
    """A text's way through the model.

    Args:
        network: encoder, pooling and projection.
    """

    def __init__(self, network: nn.ModuleDict) -> None:
        super().__init__()
        model = cast(Any, network["encoder"]).model
        self.model = getattr(model, "language_model", model)
        self.pooling, self.projection = network["pooling"], network["projection"]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) int64 ids, framed as polyqwen.json tells, and mask -> (B, D), unit norm."""
        causal = hasattr(cast(Any, self.model).config, "use_cache")
        settings: dict[str, Any] = {"use_cache": False} if causal else {}
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **settings)
        pooled = self.pooling(hidden.last_hidden_state, attention_mask.bool())
        return F.normalize(self.projection(pooled).float(), dim=-1)


def save_onnx(model: EmbeddingModel, folder: Path) -> None:
    """Writes ``onnx/model.onnx`` into an exported folder; batch and length are free.

    Raises:
        ValueError: the packages for it are not installed, or the model has parts per task.
    """
    exportable(model)
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise ValueError(f"--onnx needs {' and '.join(missing)}; pip install {' '.join(missing)}")
    path = folder / FILE
    path.parent.mkdir()
    network = TextPath(model.network).eval()
    ids = torch.ones(2, 8, dtype=torch.int64, device=model.device)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of axes that are written anyway
        torch.onnx.export(
            network,
            (ids, torch.ones_like(ids)),
            path,
            input_names=["input_ids", "attention_mask"],
            output_names=["vector"],
            dynamic_shapes=(free, free),
            dynamo=True,
            verbose=False,
        )
