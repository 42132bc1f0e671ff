"""A trained model as mteb's encoder: ``mteb.evaluate(MtebEncoder(folder), tasks)``.

mteb is no requirement of polyqwen; it is imported where a model's description is asked for.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from polyqwen.inference.model import load


class MtebEncoder:
    """mteb 2's `EncoderProtocol`, structurally.

    Args:
        model_name: a run's folder or an exported one.
        revision: not used; mteb hands it over.
        device: such as ``cuda`` or ``cpu``; None takes a GPU if there is one.
        task: polyqwen's task whose prefix all contents get, or mteb task's name (or type, such as
            ``STS``) -> task; None takes the model's default.

    Raises:
        ValueError: the folder is no model, or has no such task.
    """

    def __init__(
        self,
        model_name: str | Path,
        revision: str | None = None,
        *,
        device: str | None = None,
        task: str | Mapping[str, str] | None = None,
        **_: Any,
    ) -> None:
        self.folder = Path(model_name)
        self.model = load(self.folder, device=device)
        self.tasks = {} if task is None or isinstance(task, str) else dict(task)
        self.default = self.model.known(task if isinstance(task, str) else self.model.default_task)
        for name in self.tasks.values():
            self.model.known(name)

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, task_metadata: Any, **given: Any
    ) -> NDArray[np.float32]:
        """Vectors of mteb's batches, dictionaries with lists ``text`` or ``image`` or both: (N, D).

        Args:
            inputs: the batches.
            task_metadata: mteb's description of its task.
            given: ``batch_size`` is used, mteb's other hints are not.
        """
        task = self.tasks.get(task_metadata.name, self.tasks.get(task_metadata.type, self.default))
        contents = [one for batch in inputs for one in _contents(batch)]
        return self.model.encode(contents, task=task, batch_size=given.get("batch_size") or 32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of all with all, (N, M)."""
        return self.model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of each with its counterpart, (N,)."""
        first, second = (torch.as_tensor(v).float() for v in (embeddings1, embeddings2))
        return F.cosine_similarity(first, second, dim=-1)

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's description of the model."""
        from mteb.models import ModelMeta

        model = self.model
        sees = model.tokens.image_id is not None
        parameters = sum(p.numel() for p in model.network.parameters())
        return ModelMeta(
            loader=MtebEncoder,
            name=f"polyqwen/{self.folder.resolve().name}",
            revision=None,
            release_date=None,
            languages=None,
            n_parameters=parameters,
            n_embedding_parameters=None,
            memory_usage_mb=parameters * 4 // 2**20,
            max_tokens=model.tokens.max_tokens,
            embed_dim=model.dimension,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            reference=None,
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=None,
            modalities=["text", "image"] if sees else ["text"],
        )


def _contents(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = [batch.get(key) for key in ("text", "image")]
    size = next(len(column) for column in columns if column is not None)
    texts, images = (column or [None] * size for column in columns)
    return [{"text": t or "", "image": i} for t, i in zip(texts, images, strict=True)]
