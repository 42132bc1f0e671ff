"""polyqwen: training multi-task, multimodal embedding models.

Letters in shape comments: B batch (pairs), N contents of a step, L tokens, H hidden size,
D embedding size, K hard negatives, T tasks.
"""

__version__ = "0.1.0"
