"""A trained model in use: `polyqwen.load(folder).encode(inputs)`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging

from polyqwen.data.batch import Batch, moved
from polyqwen.data.collator import Collator
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.task import Task
from polyqwen.data.tables.dataset import Row, Side
from polyqwen.data.tables.labels import LabelBook
from polyqwen.data.tokens import Tokens
from polyqwen.inference.inputs import GivenPictures, Input, content_of, is_single
from polyqwen.inference.load import model_parts
from polyqwen.models.encoder import Encoder
from polyqwen.models.memory.large_batch import LargeBatch
from polyqwen.training.step import project_and_normalize


class EmbeddingModel:
    """Texts and pictures to vectors. Made by `polyqwen.load`.

    What a vector says depends on the task whose prefix stands before the content; queries and
    documents of a task have the same prefix. In fp32 an input's vector does not depend on what it
    is encoded together with (to about 1e-6).

    Args:
        encoder: see `polyqwen.models.encoder.Encoder`.
        pooling: hidden states and mask to one vector.
        projection: to the embedding, before its unit norm.
        tokens: tokenizer and prefixes.
        pictures: geometry of pictures; opens files below its root, which is the file system's.
        tasks: task -> largest picture in visual tokens, in the order of the run.
        default_task: the task of inputs that name none; None: the first.
        separate: the encoder has a part per task.

    Raises:
        ValueError: the default task is none of the tasks.
    """

    def __init__(
        self,
        encoder: Encoder,
        pooling: nn.Module,
        projection: nn.Module,
        *,
        tokens: Tokens,
        pictures: Pictures,
        tasks: Mapping[str, int],
        default_task: str | None = None,
        separate: bool = False,
    ) -> None:
        self.tokens, self.geometry = tokens, pictures
        self.tasks = dict(tasks)
        self.default_task = self.known(default_task or next(iter(tasks)))
        self.separate = separate
        parts = {"encoder": cast(nn.Module, encoder), "pooling": pooling, "projection": projection}
        self.network = nn.ModuleDict(parts).eval()

    @classmethod
    def load(
        cls, folder: str | Path, *, checkpoint: str = "last", device: str | None = None
    ) -> "EmbeddingModel":
        """The model of a run's folder, or of a folder made by ``polyqwen export``.

        Args:
            folder: the folder.
            checkpoint: of a run: ``last``, ``best`` or a path.
            device: such as ``cuda`` or ``cpu``; None takes a GPU if there is one.

        Raises:
            ValueError: it is neither, or its weights are missing, damaged or of another model.
        """
        logging.disable_progress_bar()
        model = cls(**model_parts(Path(folder), checkpoint))
        return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def to(self, device: str | torch.device) -> "EmbeddingModel":
        """Moves the weights; returns itself."""
        self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def dimension(self) -> int:
        """D, length of a vector."""
        return int(cast(Any, self.network["projection"]).output_size)

    def encode(
        self,
        inputs: Input | Sequence[Input],
        *,
        task: str | None = None,
        batch_size: int = 32,
        truncate_dim: int | None = None,
        normalize: bool = True,
        convert_to_numpy: bool = True,
        show_progress: bool = False,
    ) -> Any:
        """Vectors of the inputs, in their order: (N, D), or (D,) for a single input.

        Args:
            inputs: one or several texts, pictures (`pathlib.Path` or PIL), or mappings with
                ``text`` and ``image`` (a path or PIL).
            task: whose prefix they get; None takes `default_task`.
            batch_size: inputs encoded at a time, >= 1; those of similar length go together.
            truncate_dim: keep so many leading dimensions, in [1, D] (for models trained with
                Matryoshka losses).
            normalize: unit norm, after truncation.
            convert_to_numpy: float32 arrays rather than tensors on the model's device.
            show_progress: a bar.

        Raises:
            ValueError: an unknown task, an empty input, a picture that cannot be read or that the
                model cannot see, or a number out of range.
        """
        task = self.known(task or self.default_task)
        size = self.dimension if truncate_dim is None else truncate_dim
        if batch_size < 1 or not 1 <= size <= self.dimension:
            raise ValueError(
                f"batch_size must be at least 1 and truncate_dim in [1, {self.dimension}], got "
                f"{batch_size} and {truncate_dim}"
            )
        given = [cast(Input, inputs)] if is_single(inputs) else list(cast(Sequence[Input], inputs))
        shown = GivenPictures(self.geometry)
        sides = self._sides(given, shown)
        collator = self._collator(shown)
        order = sorted(range(len(sides)), key=lambda i: self._cost(sides[i], task))
        out = torch.zeros(len(sides), size, device=self.device)
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        for part in track(batches, "encoding", disable=not show_progress):
            rows = [Row(task, i, sides[i], sides[i], (), None) for i in part]
            vectors = self._embed(collator(rows, only=task), task)[:, :size]
            out[part] = F.normalize(vectors, dim=-1) if normalize else vectors
        answer = out[0] if is_single(inputs) else out
        return answer.cpu().numpy() if convert_to_numpy else answer

    def encode_query(self, inputs: Input | Sequence[Input], **settings: Any) -> Any:
        """As `encode`: both sides of a task have the same prefix."""
        return self.encode(inputs, **settings)

    def encode_document(self, inputs: Input | Sequence[Input], **settings: Any) -> Any:
        """As `encode`: both sides of a task have the same prefix."""
        return self.encode(inputs, **settings)

    @staticmethod
    def similarity(first: NDArray[Any] | Tensor, second: NDArray[Any] | Tensor) -> Tensor:
        """Cosines of all rows with all rows: (N, D), (M, D) -> (N, M)."""
        a, b = (torch.as_tensor(v, dtype=torch.float32) for v in (first, second))
        return F.normalize(torch.atleast_2d(a), dim=-1) @ F.normalize(torch.atleast_2d(b), dim=-1).T

    def known(self, task: str) -> str:
        """The task; ValueError if the model has no such."""
        if task not in self.tasks:
            raise ValueError(f"task {task!r} is unknown; the model has {', '.join(self.tasks)}")
        return task

    def _collator(self, pictures: GivenPictures) -> Collator:
        plain = {
            name: Task({"query_text": "text"}, prefix="", visual_tokens=most)
            for name, most in self.tasks.items()
        }
        return Collator(
            self.tokens,
            pictures,
            visual_tokens=self.tasks,
            book=LabelBook(plain),
            separate=self.separate,
        )

    def _sides(self, given: Sequence[Input], pictures: GivenPictures) -> list[Side]:
        contents = [content_of(one) for one in given]
        ids = self.tokens.encode([text for text, _ in contents]) if contents else []
        sides = []
        for number, ((_, image), own) in enumerate(zip(contents, ids, strict=True)):
            name, size = (None, (0, 0)) if image is None else pictures.add(image)
            sides.append(Side(tuple(own), name, size, number))
        return sides

    def _cost(self, side: Side, task: str) -> int:
        """Tokens of an input."""
        visual = self.geometry.visual_tokens(side.size, self.tasks[task]) if side.image else 0
        return len(side.ids) + visual

    @torch.inference_mode()
    def _embed(self, batch: Batch, task: str) -> Tensor:
        """Projected vectors of a batch's rows, (B, D) in fp32."""
        batch = moved(batch, self.device)
        parts = self.network
        pooled = LargeBatch("off").pooled(
            cast(Encoder, parts["encoder"]), parts["pooling"], batch.chunks, batch.images
        )
        features = project_and_normalize(parts["projection"], pooled, batch.tasks, list(self.tasks))
        return features.projected[features.tasks[task].query].float()


load = EmbeddingModel.load  # `polyqwen.load`
