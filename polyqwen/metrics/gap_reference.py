"""The similarity gap that the viPolyQwen paper calls healthy, to be drawn beside a measured one."""

import numpy as np

# step, lowest and highest gap (section 5.1): "~0.01", "~0.07", "target by step 2000: 0.10-0.15"
POINTS = ((0, 0.01, 0.01), (120, 0.07, 0.07), (2000, 0.10, 0.15))
LOW, HIGH = "paper_5.1_low", "paper_5.1_high"  # names that TensorBoard leaves as they are


def reference_gap(first: int, last: int) -> dict[str, tuple[list[int], list[float]]]:
    """The paper's gap over a stretch of optimizer steps: name of a line -> steps, values.

    Straight lines through the printed points. The paper says nothing beyond step 2000, so the lines
    end there; of a stretch that begins later there are none. Its run had batches of 480 rows; a gap
    of other rows or another metric's negatives need not follow it.

    Args:
        first: absolute optimizer step of the left end.
        last: of the right end.
    """
    steps = [step for step, _, _ in POINTS]
    low, high = [low for _, low, _ in POINTS], [high for _, _, high in POINTS]
    right = min(last, steps[-1])
    if first >= right:
        return {}
    inner = [step for step in steps if first < step < right]
    at = [first, *inner, right]
    return {
        name: (at, np.interp(at, steps, values).tolist())
        for name, values in ((LOW, low), (HIGH, high))
    }
