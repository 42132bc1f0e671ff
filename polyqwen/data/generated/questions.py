"""The language of questions and answers about scenes.

One object is named by its shape and asked for its colour, or the other way round; or everything is
asked for. Questions by position are left out on purpose.
"""

import random
from collections.abc import Iterable
from typing import NamedTuple

from polyqwen.data.generated.phrases import PHRASES
from polyqwen.data.generated.scenes import SHAPES, Thing

KINDS = ("shape", "colour")  # what names the object
SHAPE_NAMES: dict[str, dict[str, str]] = PHRASES["shape_names"]
COLOUR_NAMES: dict[str, dict[str, str]] = PHRASES["colour_names"]
# all objects in full; ELSE asks for those not spoken of yet and so needs the whole history
EVERYTHING: dict[str, list[str]] = PHRASES["everything"]
ELSE: dict[str, list[str]] = PHRASES["everything_else"]


class Ask(NamedTuple):
    """How a conversation asks: by ``shape`` or ``colour``, and its language."""

    kind: str
    language: str


def _name(names: dict[str, dict[str, str]], language: str, word: str) -> str:
    return names[language].get(word, word)  # the English words are the keys


def answer(thing: Thing, ask: Ask) -> str:
    """The object's colour or shape, in the words of the question's language."""
    shape = _name(SHAPE_NAMES, ask.language, thing.shape)
    colour = _name(COLOUR_NAMES, ask.language, thing.colour)
    return colour if ask.kind == "shape" else shape


def _fill(phrasings: str, thing: Thing, ask: Ask, rng: random.Random) -> str:
    names = SHAPE_NAMES if ask.kind == "shape" else COLOUR_NAMES
    word = thing.shape if ask.kind == "shape" else thing.colour
    text: str = rng.choice(PHRASES[phrasings][ask.kind][ask.language])
    text = text.format(_name(names, ask.language, word))
    return text[0].upper() + text[1:]


def question(thing: Thing, ask: Ask, rng: random.Random) -> str:
    """A question that stands alone."""
    return _fill("questions", thing, ask, rng)


def follow_up(thing: Thing, ask: Ask, rng: random.Random) -> str:
    """An elliptic question after others asked the same way."""
    return _fill("follow_ups", thing, ask, rng)


def inventory(things: Iterable[Thing], language: str) -> str:
    """All that is to be said about the objects, in the order of SHAPES."""
    ordered = sorted(things, key=lambda thing: SHAPES.index(thing.shape))
    separator: str = PHRASES["object_separator"][language]
    return separator.join(
        PHRASES["object"][language].format(
            shape=_name(SHAPE_NAMES, language, thing.shape),
            colour=_name(COLOUR_NAMES, language, thing.colour),
        )
        for thing in ordered
    )
