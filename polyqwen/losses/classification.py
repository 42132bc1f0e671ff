"""Loss of texts with class labels: a linear head on the embedding, with regularisers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.losses import checks
from polyqwen.losses.contrast_labels import LabelContrastLoss
from polyqwen.losses.similarity import at_least_float32, mean, weighted_mean
from polyqwen.losses.types import LossOutput, Pairs
from polyqwen.losses.uniformity import UniformityLoss


class ClassificationLoss(nn.Module):
    """L = CE(σ (W e + b)) + λ_u · uniformity + λ_c · contrast over labels.

    e is the embedding of unit norm, σ a learned scale: a head on the unit sphere would need many
    steps to grow logits of a useful size by its weights alone. Only rows with a label come here,
    so a missing one costs nothing.

    Label smoothing: Szegedy et al. 2016, arXiv 1512.00567. Regularisers: see `UniformityLoss` and
    `LabelContrastLoss`.

    Args:
        classes: names of the classes, at least 2.
        embedding_size: D; given by the run.
        scale: σ at the start, > 0.
        label_smoothing: part of the target spread over all classes, in [0, 1).
        class_weights: class -> weight of its rows in the mean, > 0; 1 for classes left out.
        uniformity_weight: λ_u >= 0.
        contrast_weight: λ_c >= 0.
        contrast_temperature: τ > 0 of the contrast.

    Attributes:
        uniformity_weight, contrast_weight: may be set from outside at any time.
    """

    class_weights: Tensor  # (C,)

    def __init__(
        self,
        classes: Sequence[str],
        embedding_size: int,
        scale: float = 10.0,
        label_smoothing: float = 0.0,
        class_weights: dict[str, float] | None = None,
        uniformity_weight: float = 0.0,
        contrast_weight: float = 0.0,
        contrast_temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if len(classes) < 2:
            raise ValueError(f"classes are {list(classes)}: give at least 2")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing is {label_smoothing!r}: give a number in [0, 1)")
        if unknown := sorted(set(class_weights or {}) - set(classes)):
            raise ValueError(f"class_weights name {unknown}: the classes are {list(classes)}")
        self.head = nn.Linear(embedding_size, len(classes))
        self.log_scale = nn.Parameter(torch.tensor(math.log(checks.positive("scale", scale))))
        self.label_smoothing = label_smoothing
        weights = [(class_weights or {}).get(name, 1.0) for name in classes]
        weights = [checks.positive("class_weights", weight) for weight in weights]
        self.register_buffer("class_weights", torch.tensor(weights), persistent=False)
        self.uniformity_weight = checks.not_negative("uniformity_weight", uniformity_weight)
        self.contrast_weight = checks.not_negative("contrast_weight", contrast_weight)
        self.uniformity = UniformityLoss()
        self.contrast = LabelContrastLoss(contrast_temperature)

    @property
    def lower_bound(self) -> float:
        """The least value: the entropy of a smoothed target, and the bounds of the regularisers."""
        wrong = self.label_smoothing / self.head.out_features
        right = 1.0 - self.label_smoothing + wrong
        parts = [right] + [wrong] * (self.head.out_features - 1)
        entropy = sum(-part * math.log(part) for part in parts if part)
        return entropy + self.uniformity_weight * self.uniformity.lower_bound

    def logits(self, embedding: Tensor) -> Tensor:
        """Unit vectors (B, D) -> (B, C), in full precision."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.log_scale.exp() * self.head(at_least_float32(embedding))  # (B, C)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Weighted mean over rows; raises ValueError where the rows have no labels."""
        label = pairs.label_for(self, self.head.out_features)  # (B,)
        logits = self.logits(pairs.query)  # (B, C)
        weight = self.class_weights.to(logits)[label]  # (B,)
        each = F.cross_entropy(
            logits, label, reduction="none", label_smoothing=self.label_smoothing
        )  # (B,)
        total = weighted_mean(each, weight)
        components = {"cross_entropy": total.detach(), **_told(logits.detach(), label)}
        chance = total.new_full((), math.log(self.head.out_features))
        output = LossOutput(total, components, chance)
        if self.uniformity_weight:
            output = output.plus(self.uniformity(pairs), self.uniformity_weight)
        if self.contrast_weight:
            output = output.plus(self.contrast(pairs), self.contrast_weight)
        return output


def _told(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Accuracy, and the mean entropy of the predicted classes in parts of its largest value."""
    entropy = torch.special.entr(logits.softmax(dim=1)).sum(dim=1) / math.log(logits.shape[1])
    hits = (logits.argmax(dim=1) == label).to(logits.dtype)
    return {"accuracy": mean(hits), "uncertainty": mean(entropy)}
