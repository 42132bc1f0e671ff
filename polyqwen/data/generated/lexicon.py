"""Concepts of the generated sentences: five slots, each concept said in three languages.

A concept has two surface forms per language, so that equal meaning need not be equal wording.
"""

from typing import NamedTuple

from polyqwen.data.generated.phrases import PHRASES

Concept = dict[str, list[str]]  # language → surface forms


class Meaning(NamedTuple):
    """What a sentence says: the index of a concept in each slot."""

    subject: int
    action: int
    object: int
    colour: int
    place: int


SLOTS: dict[str, list[Concept]] = PHRASES["concepts"]
SIZES = tuple(len(concepts) for concepts in SLOTS.values())
FORMS = 2  # surface forms of a concept in each language


def opposite(meaning: Meaning) -> Meaning:
    """The same scene with the opposite action (buys ↔ sells, hides ↔ finds, ...)."""
    return meaning._replace(action=meaning.action ^ 1)
