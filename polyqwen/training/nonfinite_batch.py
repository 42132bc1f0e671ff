"""Zero loss for a micro-batch whose forward pass is not finite."""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from polyqwen.losses.types import LossOutput
from polyqwen.training.distributed import world_size
from polyqwen.training.step import Features


def forward_is_finite(features: Features, outputs: Mapping[str, LossOutput]) -> Tensor:
    """Whether embeddings, scores and losses of a micro-batch are finite on every rank: () bool.

    It stays on the device, so the host does not wait for it; a collective with several ranks.

    Args:
        features: of this rank.
        outputs: losses present.
    """
    scores = [rows.score for rows in features.tasks.values() if rows.score is not None]
    values = [features.embeddings, *scores, *(output.total for output in outputs.values())]
    finite = torch.stack([value.detach().isfinite().all() for value in values]).all()
    if world_size() > 1:
        votes = finite.int()
        dist.all_reduce(votes, op=dist.ReduceOp.MIN)
        finite = votes.bool()
    return finite


class GradientMask:
    """Keeps the gradients of a micro-batch that is not finite out of those accumulated before it.

    A loss of zero alone does not: on its way back its gradient of zero is multiplied by the
    activations, and 0 · NaN is NaN. So every parameter's gradient is replaced by zeros just before
    it is accumulated (and reduced over ranks). The graph, and with it every collective, stays the
    same. Gradients of a finite micro-batch keep their bits.

    Attributes:
        accumulates: whether a step has several micro-batches. With a single one there is nothing to
            protect: `NonFiniteGuard` skips the step.
    """

    def __init__(self) -> None:
        self.accumulates = False
        self._handles: list[RemovableHandle] = []

    def begin(self, parameters: Iterable[Parameter], finite: Tensor) -> None:
        """Masks gradients from here to `end`.

        Args:
            parameters: as they are in this step; those of FSDP2 are other tensors outside of it.
            finite: () bool, on the device.
        """
        self.end()
        if self.accumulates:
            hook = partial(_zero_unless, finite)
            self._handles = [p.register_hook(hook) for p in parameters if p.requires_grad]

    def end(self) -> None:
        """Lets gradients pass, after the micro-batch's backward pass."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _zero_unless(finite: Tensor, gradient: Tensor) -> Tensor:
    return torch.where(finite, gradient, 0.0)
