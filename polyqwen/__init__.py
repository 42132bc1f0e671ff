"""polyqwen: training multi-task, multimodal embedding models.

Letters in shape comments: B batch (pairs), N contents of a step, L tokens, H hidden size,
D embedding size, K hard negatives, T tasks.
"""

from typing import TYPE_CHECKING

from polyqwen.lazy import lazy_names
from polyqwen.version import __version__ as __version__

if TYPE_CHECKING:
    from polyqwen.inference.model import EmbeddingModel as EmbeddingModel
    from polyqwen.inference.model import load as load

__all__, __getattr__, __dir__ = lazy_names(__name__)
