"""polyqwen: training multi-task, multimodal embedding models.

Letters in shape comments: B batch (pairs), N contents of a step, L tokens, H hidden size,
D embedding size, K hard negatives, T tasks.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """``polyqwen.EmbeddingModel``, imported when asked for: torch takes seconds to import."""
    if name == "EmbeddingModel":
        from polyqwen.inference.model import EmbeddingModel

        return EmbeddingModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
