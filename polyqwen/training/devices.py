"""From the host to a device without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(numbers: Sequence[int], device: torch.device) -> Tensor:
    """(N,) int64 on a device; the host goes on at once.

    ``torch.tensor(…, device="cuda")`` copies from memory that may be paged out, and so waits until
    all work under way is done.
    """
    held = torch.tensor(numbers)
    if device.type == "cuda":
        held = held.pin_memory()
    return held.to(device, non_blocking=True)
