"""A small multilingual data set made from nothing: five tasks to try every part of polyqwen on."""

from polyqwen.data.generated.build import generate, is_generated

__all__ = ["generate", "is_generated"]
