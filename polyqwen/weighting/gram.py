"""Where inner products of the tasks' gradients come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Graph(NamedTuple):
    """The places of a training step's graph at which gradients can be taken.

    Attributes:
        pooled: (N, H) features of all contents that go into the projection.
        projected: (N, D) what comes out of it, before the embeddings' normalisation.
        parameters: all trained parameters.
    """

    pooled: Tensor
    projected: Tensor
    parameters: Sequence[nn.Parameter]


class Products(NamedTuple):
    """Inner products of gradients, float64 on the CPU.

    Attributes:
        tasks: (T, T), rows and columns of absent tasks zero.
        trusted: (T,) with the gradient of the trusted rows' loss; None if there was none.
        trusted_norm: length of that gradient.
    """

    tasks: Tensor
    trusted: Tensor | None = None
    trusted_norm: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether all products are."""
        products = [self.tasks] if self.trusted is None else [self.tasks, self.trusted]
        return all(bool(torch.isfinite(values).all()) for values in products)


class Gram(ABC):
    """Collects one gradient vector per task and gives their inner products.

    ``G = (1/A²) · S Sᵀ`` with ``S = Σ over the step's A micro-batches and all ranks`` of the
    gradients (T, P). Sums are formed before the product: a mean of every rank's own Gram matrix
    would be another matrix, too large on the diagonal. Micro-batches that are not finite are left
    out of S and A; G is NaN where none is left.
    """

    through_encoder: ClassVar[bool] = False  # whether gradients reach behind the pooled features

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # (T, P)
        self._trusted: Tensor | None = None  # (P,)
        self._batches: int | Tensor = 0

    def add(
        self, losses: Sequence[Tensor | None], graph: Graph, finite: Tensor | None = None
    ) -> None:
        """Adds one micro-batch.

        Args:
            losses: of each task over the rows of all ranks, with a graph; None where absent. The
                tasks present must be the same on all ranks.
            graph: of this rank.
            finite: () bool, whether the micro-batch counts; None: it does.
        """
        rows = [None if loss is None else self._gradient(loss, graph) for loss in losses]
        absent = torch.zeros_like(next(row for row in rows if row is not None))
        stacked = torch.stack([absent if row is None else row for row in rows])  # (T, P)
        if finite is not None:
            stacked = torch.where(finite, stacked, 0.0)
        self._sums = stacked if self._sums is None else self._sums + stacked
        self._batches = self._batches + (1 if finite is None else finite)

    def add_trusted(self, loss: Tensor, graph: Graph) -> None:
        """Sets the gradient that the tasks' are compared with: of rows of its own, once a step."""
        self._trusted = self._gradient(loss, graph)

    def all_reduce(self) -> None:
        """Sums the gradients of all ranks, each of which holds its part times their number."""
        for name in ("_sums", "_trusted"):
            own = getattr(self, name)
            if own is not None:
                dist.all_reduce(own)
                setattr(self, name, own / dist.get_world_size())

    def take(self) -> Products | None:
        """What was added since the last time, or None if no task was."""
        if self._sums is None:
            return None
        sums, trusted = self._sums.double() / self._batches, self._trusted
        self._sums, self._trusted, self._batches = None, None, 0
        gram = (sums @ sums.T).cpu()
        if trusted is None:
            return Products(gram)
        return Products(gram, (sums @ trusted.double()).cpu(), float(trusted.double().norm()))

    def _gradient(self, loss: Tensor, graph: Graph) -> Tensor:
        with torch.autocast(graph.projected.device.type, enabled=False):
            return self.gradient(loss, graph)

    @abstractmethod
    def gradient(self, loss: Tensor, graph: Graph) -> Tensor:
        """One task's gradient on this rank, (P,) float32; keeps the graph."""


class SharedHeadGram(Gram):
    """Gradients of a virtual last layer, ``δᵀ h`` with δ the gradient at the projection's output.

    Were there one more linear map W from the pooled features h (N, H) to the output, this would be
    its gradient, (D, H). Needs no pass through the encoder: T small backward passes from the losses
    to the output. Tasks own different rows, so gradients at the rows themselves never meet; these
    do.
    """

    def gradient(self, loss: Tensor, graph: Graph) -> Tensor:
        """One task's (D · H,)."""
        (delta,) = torch.autograd.grad(loss, graph.projected, retain_graph=True)  # (N, D)
        return (delta.float().T @ graph.pooled.detach().float()).flatten()


class SummedRepresentationGram(Gram):
    """Gradients at the projection's output summed over rows, ``Σ_n δ_n``: those of a last bias.

    The cheapest, and the coarsest: it overstates how much tasks agree (LibMTL's ``rep_grad``).
    """

    def gradient(self, loss: Tensor, graph: Graph) -> Tensor:
        """One task's (D,)."""
        (delta,) = torch.autograd.grad(loss, graph.projected, retain_graph=True)  # (N, D)
        return delta.float().sum(0)


class FullParameterGram(Gram):
    """Gradients of all trained parameters: the reference, at T more backward passes."""

    through_encoder: ClassVar[bool] = True

    def gradient(self, loss: Tensor, graph: Graph) -> Tensor:
        """One task's (P,), zero where a parameter has no part in it."""
        gradients = torch.autograd.grad(
            loss, list(graph.parameters), retain_graph=True, allow_unused=True
        )
        return torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.float().flatten()
                for p, g in zip(graph.parameters, gradients, strict=True)
            ]
        )
