"""A frozen table of embeddings, a few rows of which are trained."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
