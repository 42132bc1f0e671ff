"""The learned part: losses' embeddings, the query, and how both follow the objective."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.lossrag.context import ENTRIES, name_vector
from polyqwen.weighting.lossrag.descriptors import FEATURES

SIZE = 16  # of embeddings and query


class PolicyParameters(NamedTuple):
    """The policy's parameters, float64 on the CPU."""

    projection: Tensor  # (16, F) P
    query: Tensor  # (16, C) W
    query_bias: Tensor  # (16,) q0
    identity: Tensor  # (M, 16) b


class Policy(nn.Module):
    """Scores ``s_i = κ e_i · q`` with ``e_i = (P φ_i + b_i) / ‖·‖`` and ``q = W c + q0``.

    Nothing but b knows which loss is which: without it, P, W and q0 score losses never seen. All
    are buffers, moved by Adam along the gradient of an objective of the scores.

    Args:
        names: of the losses.
        learning_rate: of Adam, > 0.
        scale: κ, > 0.
        ids: whether losses have a b of their own.
        id_decay: strength of the penalty ``½ d Σ ‖b_i‖²``, >= 0.
        seed: of what the parameters start from; b_i also depends on the loss's name.
    """

    projection: Tensor
    query: Tensor
    query_bias: Tensor
    identity: Tensor

    def __init__(
        self,
        names: Sequence[str],
        learning_rate: float,
        scale: float,
        ids: bool,
        id_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.scale, self.id_decay, self.ids = scale, id_decay, ids
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(
            SIZE, len(FEATURES) + len(ENTRIES) + 1, generator=generator, dtype=torch.float64
        )
        projection, query, bias = drawn.split([len(FEATURES), len(ENTRIES), 1], dim=1)
        # a small query: shares start near equal, with a gradient for P all the same
        start = PolicyParameters(
            projection / len(FEATURES) ** 0.5,
            0.1 * query / len(ENTRIES) ** 0.5,
            0.1 * bias.flatten() / SIZE**0.5,
            torch.stack([ids * name_vector(name, SIZE, seed) for name in names]),
        )
        for name, value in start._asdict().items():
            self.register_buffer(name, value.clone())
        self.rule = AdamRule(sum(value.numel() for value in start), learning_rate)

    @property
    def parts(self) -> PolicyParameters:
        """Copies of the parameters."""
        return PolicyParameters(
            *(getattr(self, name).cpu().clone() for name in PolicyParameters._fields)
        )

    def scores(
        self,
        features: Tensor,
        context: Tensor,
        losses: Tensor,
        parts: PolicyParameters | None = None,
    ) -> Tensor:
        """s, (m,), of some of the losses.

        Args:
            features: (m, F) their φ.
            context: (C,).
            losses: (m,) int64, which they are.
            parts: parameters to score by; None takes the policy's own.
        """
        own = self.parts if parts is None else parts
        raw = features @ own.projection.T + own.identity[losses]  # (m, 16)
        # the 1e-6: a loss of which nothing is known has no direction, but a gradient that is finite
        embedding = raw / (raw.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        return self.scale * embedding @ (own.query @ context + own.query_bias)

    def ascend(
        self, features: Tensor, context: Tensor, losses: Tensor, value: Callable[[Tensor], Tensor]
    ) -> None:
        """One step of Adam up ``value(scores)``; the ids of other losses stay."""
        gradient = self.gradient(features, context, losses, value)
        own = self.parts
        moves = [torch.ones_like(part, dtype=torch.bool) for part in own]
        moves[-1].zero_()
        moves[-1][losses] = self.ids
        flat = [torch.cat([part.flatten() for part in parts]) for parts in (own, gradient, moves)]
        moved = self.rule.step(flat[0], -flat[1], flat[2])
        for name, part, new in zip(
            PolicyParameters._fields, own, moved.split([part.numel() for part in own]), strict=True
        ):
            getattr(self, name).copy_(new.view_as(part))

    def gradient(
        self, features: Tensor, context: Tensor, losses: Tensor, value: Callable[[Tensor], Tensor]
    ) -> PolicyParameters:
        """Gradient of ``value(scores)`` minus the ids' penalty with respect to the parameters."""
        with torch.enable_grad():
            parts = PolicyParameters(*(part.requires_grad_() for part in self.parts))
            penalty = 0.5 * self.id_decay * parts.identity[losses].square().sum()
            climbed = value(self.scores(features, context, losses, parts)) - penalty
            return PolicyParameters(*torch.autograd.grad(climbed, list(parts)))
