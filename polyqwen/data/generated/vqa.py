"""Rows of the two question tasks over scenes: single questions and conversations.

Each picture serves three rows with different answers, so that neither the question without the
picture nor the picture without the question gives the answer away.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyqwen.data.generated.lexicon import LANGUAGES
from polyqwen.data.generated.pictures import save
from polyqwen.data.generated.questions import Ask, answer, follow_up, question, remaining
from polyqwen.data.generated.scenes import Scene, Thing, describe, draw_scene, new_scene

ROWS_PER_PICTURE = 3
BRIEF_SHARE = 0.2  # conversations that ask for colour or shape alone
REMAINING_SHARE = 0.15  # conversations that end with the object not spoken of

Dialogue = tuple[Ask, list[dict[str, str]]]


def ask_once(things: tuple[Thing, ...], target: Thing, kind: str, rng: random.Random) -> Dialogue:
    """One full question about ``target``."""
    ask = Ask(kind, rng.choice(LANGUAGES))
    return ask, [{"question": question(target, ask, rng), "answer": answer(target, ask)}]


def converse(things: tuple[Thing, ...], target: Thing, kind: str, rng: random.Random) -> Dialogue:
    """Two to four turns about different objects, elliptic from the second on, ``target`` last."""
    ask = Ask(kind, rng.choice(LANGUAGES), texture=rng.random() >= BRIEF_SHARE)
    others = [thing for thing in things if thing != target]
    name_last = rng.random() >= REMAINING_SHARE
    before = rng.sample(others, rng.randint(1, len(others)) if name_last else len(others))
    turns = [{"question": question(before[0], ask, rng), "answer": answer(before[0], ask)}]
    for thing in before[1:]:
        turns.append({"question": follow_up(thing, ask, rng), "answer": answer(thing, ask)})
    last = follow_up(target, ask, rng) if name_last else remaining(ask, rng)
    turns.append({"question": last, "answer": answer(target, ask)})
    return ask, turns


def vqa_rows(
    rng: random.Random, count: int, used: set[Scene], root: Path, folder: str, multi: bool
) -> Iterator[dict[str, Any]]:
    """Rows with image, question and answer (or turns), lang and source; writes their pictures.

    Args:
        rng: the source of all choices.
        count: number of rows; a picture serves three of them.
        used: scenes already shown in any split of either task.
        root: the data set's folder.
        folder: where the pictures go, relative to root; made if missing.
        multi: conversations instead of single questions.
    """
    (root / folder).mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(rng.getrandbits(64))
    talk = converse if multi else ask_once
    for first in range(0, count, ROWS_PER_PICTURE):
        things = new_scene(rng, used)
        image = f"{folder}/{first // ROWS_PER_PICTURE:06d}.png"
        save(draw_scene(things, grain), root / image, describe(things), grain)
        targets = [(thing, kind) for thing in things for kind in ("shape", "colour")]
        for target, kind in rng.sample(targets, min(ROWS_PER_PICTURE, count - first)):
            ask, turns = talk(things, target, kind, rng)
            asked: dict[str, Any] = {"turns": turns} if multi else turns[0]
            yield {"image": image, **asked, "lang": ask.language, "source": "generated/scene"}
