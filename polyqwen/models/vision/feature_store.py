"""A step's visual features: made once, on the device or, when there are many, on the host."""

import torch
from torch import Tensor

from polyqwen.models.encoder import Chunk, Encoder, Images


class VisualStore:
    """Runs the vision tower once for all pictures of a batch and gives each chunk its rows.

    Args:
        encoder: whose vision tower to run.
        images: the distinct pictures of the batch, if there are any.
        patches: the tower takes pictures up to so many patches at a time, >= 1; None all at once.
        device_gb: features of a frozen tower go to the host if all of the batch would be larger;
            None keeps them on the device.

    Attributes:
        features: (V, H), or None for a batch without pictures; see `Encoder.encode_images`.
    """

    def __init__(
        self,
        encoder: Encoder,
        images: Images | None,
        patches: int | None = None,
        device_gb: float | None = None,
    ) -> None:
        self.features: Tensor | None
        if images is None:
            self.features = encoder.encode_images(None)
            return
        parts = []
        for part in split_images(images, patches):
            features = encoder.encode_images(part)
            assert features is not None
            of_all = features.nbytes * len(images.patches) / max(len(part.patches), 1)
            spill = device_gb is not None and of_all > device_gb * 2**30
            parts.append(to_host(features) if spill and not features.requires_grad else features)
        self.features = parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def trained(self) -> Tensor | None:
        """The features, if they have a graph: the tower is trained."""
        return self.features if self.features is not None and self.features.requires_grad else None

    def of(self, chunk: Chunk, trained: Tensor | None = None) -> tuple[Chunk, Tensor | None]:
        """The chunk and the features that it refers to.

        Args:
            chunk: of the batch.
            trained: stands for `trained`, when the gradient is taken elsewhere.
        """
        features = self.features if trained is None else trained
        if features is None or chunk.visual is None or features.device == chunk.ids.device:
            return chunk, features
        rows = features[chunk.visual.to(features.device)]  # a chunk's own rows alone travel
        own = torch.arange(len(rows), device=chunk.ids.device)
        return chunk._replace(visual=own), rows.to(chunk.ids.device, non_blocking=True)


def split_images(images: Images, patches: int | None) -> list[Images]:
    """Runs of neighbouring pictures of at most so many patches, at least one picture each."""
    if patches is None or len(images.patches) <= patches:
        return [images]
    parts: list[list[int]] = [[]]
    for size in images.lengths or images.grid.prod(-1).tolist():
        if parts[-1] and sum(parts[-1]) + size > patches:
            parts.append([])
        parts[-1].append(size)
    cut = images.patches.split([sum(part) for part in parts])
    grids = images.grid.split([len(part) for part in parts])
    return [Images(*part) for part in zip(cut, grids, parts, strict=True)]


def to_host(features: Tensor) -> Tensor:
    """The features in page-locked memory of the host; those that are there already as they are."""
    if not features.is_cuda:
        return features
    host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    return host.copy_(features)
