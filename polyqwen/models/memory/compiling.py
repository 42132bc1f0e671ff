"""torch.compile for the blocks of a transformer, one by one."""

from collections.abc import Iterable

from torch import nn


def compile_blocks(blocks: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Compiles each block in place, at its first call.

    Blocks are alike, so that the code of the first serves them all: one compilation for a training
    step and one for evaluation, however deep the model. Batch sizes and lengths are symbols
    (``dynamic=True``); lengths rounded up (``data.pad_to_multiple``) are still kinder to the
    kernels. A whole model would break into pieces at its masks, positions and pictures. Parameters
    keep their names: checkpoints of compiled and plain runs load into each other.

    Args:
        blocks: modules with tensors in and out.
        backend: of `torch.compile`.
    """
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
