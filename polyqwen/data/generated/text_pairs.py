"""Scored sentence pairs: how much of the meaning two sentences share, whatever the words.

    score(a, b) = Σ_s w_s [a_s = b_s] / Σ_s w_s

with w = 3 for action and object, 2 for the subject, 1 for colour and place.

Every second row has score 1.0; the others spread evenly over 0.0, 0.1, ..., 0.9. Word overlap says
little about the score: pairs of equal meaning are often reworded in every slot or said in another
language, pairs of lower score are often copies with single words changed.
"""

import random
from collections.abc import Iterator
from itertools import product
from typing import Any

from polyqwen.data.generated.phrases import LANGUAGES
from polyqwen.data.generated.sentences import (
    SIZES,
    Meaning,
    MeaningPool,
    random_wording,
    reworded,
    say,
)

WEIGHTS = Meaning(subject=2, action=3, object=3, colour=1, place=1)

CROSS_LANGUAGE_EQUAL = 0.45  # share of pairs in two languages among those of score 1.0
CROSS_LANGUAGE_OTHER = 0.45  # and among the others
REWORDED = 0.5  # share of one-language pairs of score 1.0 with no wording in common
NEAR_COPY = 0.4  # share of one-language pairs below 1.0 that keep template and synonyms

# Which slots may stay equal to reach each score, in tenths.
_KEPT: dict[int, list[tuple[bool, ...]]] = {}
for _kept in product((False, True), repeat=len(WEIGHTS)):
    _level = sum(weight for weight, keep in zip(WEIGHTS, _kept, strict=True) if keep)
    _KEPT.setdefault(_level, []).append(_kept)


def score(a: Meaning, b: Meaning) -> float:
    """Weighted share of equal slots, in [0, 1]; 1.0 only for the same meaning."""
    equal = sum(weight for weight, x, y in zip(WEIGHTS, a, b, strict=True) if x == y)
    return equal / sum(WEIGHTS)


def change(meaning: Meaning, kept: tuple[bool, ...], rng: random.Random) -> Meaning:
    """Another concept in every slot that is not kept."""
    slots = zip(meaning, kept, SIZES, strict=True)
    return Meaning(*(x if keep else (x + rng.randrange(1, n)) % n for x, keep, n in slots))


def _partner(base: Meaning, level: int, rng: random.Random, pool: MeaningPool) -> Meaning:
    if level == sum(WEIGHTS):
        return base
    while True:
        partner = change(base, rng.choice(_KEPT[level]), rng)
        if pool.take(partner):
            return partner


def text_pair_rows(rng: random.Random, count: int, pool: MeaningPool) -> Iterator[dict[str, Any]]:
    """Rows with text_a, text_b, score, lang (of text_a) and source.

    Every meaning, of either side, belongs to one row only: a document of score 1.0 is the only
    right answer to its query.

    Args:
        rng: the source of all choices.
        count: number of rows.
        pool: the meanings still free, shared by all splits.
    """
    for index in range(count):
        equal = index % 2 == 0
        base = pool.draw(rng)
        level = sum(WEIGHTS) if equal else index // 2 % sum(WEIGHTS)
        partner = _partner(base, level, rng, pool)
        first = random_wording(rng)
        cross = rng.random() < (CROSS_LANGUAGE_EQUAL if equal else CROSS_LANGUAGE_OTHER)
        if cross:
            second = random_wording(rng, rng.choice([x for x in LANGUAGES if x != first.language]))
        elif equal and rng.random() < REWORDED:
            second = reworded(first, rng)
        elif not equal and rng.random() < NEAR_COPY:
            second = first
        else:
            second = random_wording(rng, first.language)
        yield {
            "text_a": say(base, first),
            "text_b": say(partner, second),
            "score": score(base, partner),
            "lang": first.language,
            "source": "generated/two-languages" if cross else "generated/one-language",
        }
