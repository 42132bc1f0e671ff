"""A shared linear head with a few regression tasks: the least that strategies can weigh."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from polyqwen.training.distributed import gather_rows, world_size
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.gram import Graph

TRUSTED = 10**6  # a step that is never trained on
ROWS, WIDTH, SIZE = 4, 6, 5  # rows of a task on all ranks, features, embedding


class ToyHead:
    """Trains W by the weighted losses as `EmbeddingModule` does, on one rank or several.

    Task t's loss is ``scale_t`` times the mean squared distance of its rows' embeddings to targets,
    so tasks differ in size and pull W in different directions. What is drawn depends on the step.

    Args:
        scales: one per task; also their number.
        absent: step -> tasks without rows.
    """

    def __init__(self, scales: Sequence[float], absent: dict[int, set[int]] | None = None) -> None:
        self.scales, self.absent = scales, absent or {}
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(WIDTH, SIZE, generator=generator, requires_grad=True)

    def step(self, weighting: Weighting, step: int, rate: float = 0.1) -> Tensor:
        """One optimizer step; returns λ as applied, (T,)."""
        features, targets = self._rows(step)
        present = [t for t in range(len(self.scales)) if t not in self.absent.get(step, set())]
        rank = dist.get_rank() if world_size() > 1 else 0
        half = ROWS // world_size()
        own = torch.cat([features[t, rank * half : (rank + 1) * half] for t in present])
        projected = own @ self.weight
        gathered = gather_rows(F.normalize(projected, dim=-1), [len(own)] * world_size())
        losses = self._losses(gathered, targets, present)
        counts = torch.tensor([half * float(t in present) for t in range(len(self.scales))])
        values = [torch.zeros(()) if loss is None else loss.detach() for loss in losses]
        weighting.observe(torch.stack(values), counts)
        if weighting.due(step):
            if weighting.needs_features:
                weighting.observe_features(own)
            if weighting.gram is not None and len(present) > 1:
                weighting.gram.add(losses, Graph(own, projected, [self.weight]))
            if weighting.lag == 0:
                self._update(weighting, step)
        weights = weighting.weights(step)
        total = sum((weights[t] * losses[t] for t in present), projected.sum() * 0.0)
        (self.gradient,) = torch.autograd.grad(total, self.weight)
        if world_size() > 1:
            dist.all_reduce(self.gradient)
            self.gradient = self.gradient / world_size()
        with torch.no_grad():
            self.weight -= rate * self.gradient
        self._after(weighting, step, present)
        return weights

    def _after(self, weighting: Weighting, step: int, present: list[int]) -> None:
        """What happens once the optimizer has stepped; every rank knows all rows here."""
        features, targets = self._rows(step)
        with torch.no_grad():
            embedded = F.normalize(features @ self.weight, dim=-1)
            now = ((embedded - targets) ** 2).sum(-1).mean(-1) * torch.tensor(self.scales)
        if weighting.needs_after:
            gone = torch.tensor([t not in present for t in range(len(self.scales))])
            weighting.observe_after(now.masked_fill(gone, torch.nan))
        weighting.end_step()
        if weighting.lag and weighting.due(step):
            self._update(weighting, step + 1)

    def _update(self, weighting: Weighting, step: int) -> None:
        """With a look at trusted rows; every rank sees all of them."""
        if not weighting.needs_trusted:
            weighting.update(step)
            return
        features, targets = self._rows(TRUSTED)
        own = features.flatten(0, 1)
        projected = own @ self.weight
        embedded = F.normalize(projected, dim=-1).unflatten(0, features.shape[:2])
        losses = ((embedded - targets) ** 2).sum(-1).mean(-1) * torch.tensor(self.scales)
        if weighting.gram is not None:
            graph = Graph(own, projected, [self.weight])
            weighting.gram.add_trusted(weighting.trusted_objective(losses), graph)
        weighting.update(step, losses.detach())

    def _rows(self, step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1000 + step)
        features = torch.randn(len(self.scales), ROWS, WIDTH, generator=generator)
        generator = torch.Generator().manual_seed(7)
        targets = F.normalize(torch.randn(len(self.scales), 1, SIZE, generator=generator), dim=-1)
        return features, targets.expand(-1, ROWS, -1)

    def _losses(self, gathered: Tensor, targets: Tensor, present: list[int]) -> list[Tensor | None]:
        """Each task's loss over the rows of all ranks, which lie rank after rank."""
        half = ROWS // world_size()
        shards = gathered.reshape(world_size(), len(present), half, SIZE)
        losses: list[Tensor | None] = [None] * len(self.scales)
        for place, task in enumerate(present):
            distance = ((shards[:, place] - targets[task, :1]) ** 2).sum(-1).mean()
            losses[task] = self.scales[task] * distance
        return losses
