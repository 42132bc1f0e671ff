"""Training: the step, the optimizer, schedules, processes; knows nothing of configurations."""

from typing import TYPE_CHECKING

from polyqwen.lazy import lazy_names

if TYPE_CHECKING:
    from polyqwen.training.module import EmbeddingModule as EmbeddingModule
    from polyqwen.training.optimizer import adamw as adamw
    from polyqwen.training.schedules import cosine as cosine
    from polyqwen.training.schedules import linear as linear

__all__, __getattr__, __dir__ = lazy_names(__name__)
