"""Rows of the two question tasks over scenes: single questions and conversations.

Each picture serves three rows that ask for different things, so that neither the question without
the picture nor the picture without the question gives the answer away. Some single questions ask
for everything and some scenes have one object only: from these a model learns to see, before it
can learn to look where the question points. Questions name an object by its shape and ask for its
colour, or the other way round; by position none does.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyqwen.data.generated.phrases import LANGUAGES, PHRASES
from polyqwen.data.generated.pictures import save
from polyqwen.data.generated.scenes import SHAPES, Thing, describe, draw_scene, new_scene

KINDS = ("shape", "colour")  # what names the object
SHAPE_NAMES: dict[str, dict[str, str]] = PHRASES["shape_names"]
COLOUR_NAMES: dict[str, dict[str, str]] = PHRASES["colour_names"]
# all objects in full; ELSE asks for those not spoken of yet and so needs the whole history
EVERYTHING: dict[str, list[str]] = PHRASES["everything"]
ELSE: dict[str, list[str]] = PHRASES["everything_else"]

ROWS_PER_PICTURE = 3
SINGLE_SIZES = (1, 1, 2, 2, 2, 3)  # objects in a scene, with shares
MULTI_SIZES = (2, 2, 2, 3)
ELSE_SHARE = 0.5  # conversations that end with a question for all the rest
SHORT_SHARE = 0.6  # conversations of two turns where more are possible

Turns = list[dict[str, str]]


class Ask(NamedTuple):
    """How a conversation asks: by ``shape`` or ``colour``, and its language."""

    kind: str
    language: str


class Talk(NamedTuple):
    """One row's words: its language, its turns, and wrong answers that fit the same picture."""

    language: str
    turns: Turns
    negatives: list[str]


def _name(names: dict[str, dict[str, str]], language: str, word: str) -> str:
    return names[language].get(word, word)  # the English words are the keys


def answer(thing: Thing, ask: Ask) -> str:
    """The object's colour or shape, in the words of the question's language."""
    shape = _name(SHAPE_NAMES, ask.language, thing.shape)
    colour = _name(COLOUR_NAMES, ask.language, thing.colour)
    return colour if ask.kind == "shape" else shape


def _fill(phrasings: str, thing: Thing, ask: Ask, rng: random.Random) -> str:
    """One of the ``questions`` or ``follow_ups`` about an object."""
    names = SHAPE_NAMES if ask.kind == "shape" else COLOUR_NAMES
    word = thing.shape if ask.kind == "shape" else thing.colour
    text: str = rng.choice(PHRASES[phrasings][ask.kind][ask.language])
    text = text.format(_name(names, ask.language, word))
    return text[0].upper() + text[1:]


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


def _turn(question: str, answer: str) -> dict[str, str]:
    return {"question": question, "answer": answer}


def converse(things: Sequence[Thing], ask: Ask, rng: random.Random) -> Turns:
    """A turn for each of the objects: a question that stands alone, then elliptic ones."""
    phrasings = ["questions", *["follow_ups"] * (len(things) - 1)]
    asked = zip(phrasings, things, strict=True)
    return [_turn(_fill(phrasing, x, ask, rng), answer(x, ask)) for phrasing, x in asked]


def _others(things: Sequence[Thing], target: Thing, ask: Ask) -> list[str]:
    """What the other objects would have been answered with."""
    return [answer(thing, ask) for thing in things if thing != target]


def _single(things: Sequence[Thing], rng: random.Random) -> list[Talk]:
    """Three questions about one scene: for everything, in two languages, and for one object."""
    made = []
    for language in rng.sample(LANGUAGES, ROWS_PER_PICTURE - 1):
        less = [inventory(things[1:], language)] if len(things) > 1 else []
        turns = [_turn(rng.choice(EVERYTHING[language]), inventory(things, language))]
        made.append(Talk(language, turns, less))
    target, ask = rng.choice(things), Ask(rng.choice(KINDS), rng.choice(LANGUAGES))
    made.append(Talk(ask.language, converse([target], ask, rng), _others(things, target, ask)))
    return made


def _multi(things: Sequence[Thing], rng: random.Random) -> list[Talk]:
    """Three conversations about one scene, of two to four turns, each with an end of its own."""
    made = []
    targets = [(thing, kind) for thing in things for kind in KINDS]
    for target, kind in rng.sample(targets, ROWS_PER_PICTURE):
        ask = Ask(kind, rng.choice(LANGUAGES))
        others = [thing for thing in things if thing != target]
        short = rng.random() < SHORT_SHARE
        before = rng.sample(others, 1 if short else rng.randint(1, len(others)))
        if rng.random() < ELSE_SHARE:
            rest = [thing for thing in things if thing not in before]
            last = _turn(rng.choice(ELSE[ask.language]), inventory(rest, ask.language))
            turns, wrong = [*converse(before, ask, rng), last], [inventory(before, ask.language)]
        else:
            turns, wrong = converse([*before, target], ask, rng), _others(things, target, ask)
        made.append(Talk(ask.language, turns, wrong))
    return made


def vqa_rows(
    rng: random.Random, count: int, split: str, root: Path, folder: str, multi: bool
) -> Iterator[dict[str, Any]]:
    """Rows with image, question and answer (or turns), negatives, lang, source; writes pictures.

    Args:
        rng: the source of all choices.
        count: number of rows; a picture serves three of them.
        split: train, dev or test; no scene is shown in two of them.
        root: the data set's folder.
        folder: where the pictures go, relative to root; made if missing.
        multi: conversations instead of single questions.
    """
    (root / folder).mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(rng.getrandbits(64))
    talk = _multi if multi else _single
    for first in range(0, count, ROWS_PER_PICTURE):
        things = new_scene(rng, split, MULTI_SIZES if multi else SINGLE_SIZES)
        image = f"{folder}/{first // ROWS_PER_PICTURE:06d}.png"
        save(draw_scene(things, grain), root / image, describe(things), grain)
        for language, turns, negatives in talk(things, rng)[: count - first]:
            asked: dict[str, Any] = {"turns": turns} if multi else turns[0]
            yield {
                "image": image,
                **asked,
                "negatives": negatives,
                "lang": language,
                "source": "generated/scene",
            }
