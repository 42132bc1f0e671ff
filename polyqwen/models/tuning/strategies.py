"""Which parameters of the encoder are trained: all, adapters of low rank, or the last layers.

The vision tower is not their business: ``model.encoder.freeze_vision`` says whether it is trained.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.models.memory.layers import recomputable


class FullTuning:
    """The whole language model.

    Attributes:
        full: nothing is frozen and no layer replaced.
    """

    full: ClassVar[bool] = True

    def apply(self, encoder: Any, new_tokens: Sequence[int]) -> None:
        """Changes the encoder in place.

        Args:
            encoder: with ``text_model``, the Hugging Face model that reads tokens.
            new_tokens: rows of its table that no checkpoint has seen, those of the prefixes.
        """


class LoraTuning(FullTuning):
    """Low-rank adapters beside frozen linear layers, and the rows of new tokens.

    y = W x + b + (α/r) · B A dropout(x), with A (r, in) and B (out, r), B zero at the start. DoRA
    learns the length of each row of W + (α/r) B A as well. Hu et al. 2021, arXiv 2106.09685; Liu et
    al. 2024, arXiv 2402.09353; both as in peft. The head is trained in full, as ever.

    Args:
        rank: r >= 1.
        alpha: α > 0.
        dropout: in [0, 1), of the adapters' inputs.
        dora: learn lengths too.
        targets: last names of the linear layers that get adapters, such as ``q_proj`` (Qwen) or
            ``query`` (BERT); names that the model lacks are passed over.
        new_tokens: train the rows of new tokens (task prefixes); without them prefixes that start
            equal stay equal.

    Raises:
        ValueError: a number is out of range.
    """

    full: ClassVar[bool] = False

    def __init__(
        self,
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.0,
        dora: bool = False,
        targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj", "query", "value"),
        new_tokens: bool = True,
    ) -> None:
        if rank < 1 or not alpha > 0.0 or not 0.0 <= dropout < 1.0:
            raise ValueError(
                "model.tuning: rank must be >= 1, alpha > 0 and dropout in [0, 1), got "
                f"{rank}, {alpha} and {dropout}"
            )
        self.rank, self.alpha, self.dropout, self.dora = rank, alpha, dropout, dora
        self.targets, self.new_tokens = tuple(targets), new_tokens

    def apply(self, encoder: Any, new_tokens: Sequence[int]) -> None:
        """See `FullTuning.apply`.

        Raises:
            ValueError: the model has no linear layer of these names.
        """
        from peft import LoraConfig, inject_adapter_in_model  # a second that others need not wait

        model = encoder.text_model
        linear = {n.rpartition(".")[2] for n, m in model.named_modules() if type(m) is nn.Linear}
        there = [name for name in self.targets if name in linear]
        if not there:
            raise ValueError(
                f"model.tuning.targets {list(self.targets)}: the model has no linear layers of "
                f"these names; it has {', '.join(sorted(linear))}"
            )
        model.requires_grad_(False)
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # a float serves as well
            lora_dropout=self.dropout,
            use_dora=self.dora,
            target_modules=there,
        )
        inject_adapter_in_model(settings, model)
        train_rows(model, new_tokens if self.new_tokens else ())


class LastLayers(FullTuning):
    """The last layers of the language model with its final norm; the rest is frozen.

    Args:
        layers: how many, >= 1.
        new_tokens: train the rows of new tokens too. They are read by the first layer, so the
            gradient then passes through all layers; without them the frozen ones have no graph and
            keep nothing for the backward pass.

    Raises:
        ValueError: fewer than one layer.
    """

    full: ClassVar[bool] = False

    def __init__(self, layers: int = 4, new_tokens: bool = True) -> None:
        if layers < 1:
            raise ValueError(f"model.tuning.layers must be at least 1, got {layers}")
        self.layers, self.new_tokens = layers, new_tokens

    def apply(self, encoder: Any, new_tokens: Sequence[int]) -> None:
        """See `FullTuning.apply`; ValueError for more layers than there are."""
        model = encoder.text_model
        layers: list[nn.Module] = [*recomputable(model)]
        if self.layers > len(layers):
            raise ValueError(
                f"model.tuning.layers is {self.layers}, but the model has {len(layers)}; lower it "
                "or use model/tuning=full"
            )
        model.requires_grad_(False)
        norm = getattr(model, "norm", None)
        for part in [*layers[-self.layers :], *([norm] if isinstance(norm, nn.Module) else [])]:
            part.requires_grad_(True)
        train_rows(model, new_tokens if self.new_tokens else ())


def train_rows(model: Any, rows: Sequence[int]) -> None:
    """Makes some rows of the model's table of embeddings parameters of their own."""
    if rows:
        model.set_input_embeddings(TrainedRows(model.get_input_embeddings(), rows))


class TrainedRows(nn.Module):
    """An embedding whose rows of new tokens are parameters of their own, all others frozen.

    A table of 150,000 rows of which four are new would otherwise take a dense gradient and two
    moments of the optimizer for nothing. The device is never waited for.

    Args:
        table: the embedding; it is frozen.
        rows: numbers of the rows to train, at least one.
    """

    def __init__(self, table: nn.Embedding, rows: Sequence[int]) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.rows = nn.Parameter(table.weight[list(rows)].detach().clone())  # (R, H)
        places = torch.full((table.num_embeddings,), -1)
        places[list(rows)] = torch.arange(len(rows))
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor  # (V,) int64, -1 at frozen rows

    @property
    def weight(self) -> Tensor:
        """(V, H) of the frozen table; its rows of new tokens are not read."""
        return self.table.weight

    @property
    def num_embeddings(self) -> int:
        """V, rows of the table."""
        return self.table.num_embeddings

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, L, H)."""
        places = self.places[ids]  # (B, L)
        own = F.embedding(places.clamp_min(0), self.rows)
        return torch.where((places >= 0)[..., None], own, self.table(ids))

    @torch.no_grad()
    def merged(self) -> nn.Embedding:
        """The plain table with the trained rows in it."""
        self.table.weight[self.places >= 0] = self.rows[self.places[self.places >= 0]]
        return self.table
