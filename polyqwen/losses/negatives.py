"""Where a task's negatives come from."""

from typing import Literal, get_args

NegativesFrom = Literal["both", "batch", "given"]
NEGATIVES_FROM: tuple[NegativesFrom, ...] = get_args(NegativesFrom)
