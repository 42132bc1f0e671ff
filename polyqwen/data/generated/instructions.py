"""Instructions and their responses: translate, rephrase, turn round, recolour, list the parts."""

import random
from collections.abc import Iterator
from typing import Any

from polyqwen.data.generated.phrases import LANGUAGES, PHRASES
from polyqwen.data.generated.sentences import (
    FORMS,
    SLOTS,
    Meaning,
    MeaningPool,
    Wording,
    opposite,
    random_wording,
    reworded,
    say,
    words,
)

KINDS = ("translate", "translate", "rephrase", "opposite", "recolour", "list")  # with shares

PROMPTS: dict[str, dict[str, list[str]]] = PHRASES["instructions"]
LANGUAGE_NAMES: dict[str, dict[str, str]] = PHRASES["language_names"]


def _parts(meaning: Meaning, wording: Wording) -> str:
    """The sentence without its colour, as a list."""
    picked = words(meaning, wording)
    order = ("subject", "action", "object", "place")
    separator: str = PHRASES["list_separator"][wording.language]
    return separator.join(picked[slot] for slot in order)


def _recoloured(meaning: Meaning, rng: random.Random) -> Meaning:
    colours = len(SLOTS["colour"])
    return meaning._replace(colour=(meaning.colour + rng.randrange(1, colours)) % colours)


def instruction_rows(
    rng: random.Random, count: int, pool: MeaningPool, lists: set[Meaning]
) -> Iterator[dict[str, Any]]:
    """Rows with instruction, response, lang (of the instruction) and source.

    Args:
        rng: the source of all choices.
        count: number of rows.
        pool: the meanings still free; a row takes its own and that of its response.
        lists: meanings (colour 0) already listed, shared by all splits: a list leaves out the
            colour, and two rows must not have the same one.
    """
    made = 0
    while made < count:
        kind = rng.choice(KINDS)
        meaning = pool.draw(rng)
        wording = random_wording(rng)
        language = wording.language
        name = ""
        if kind == "translate":
            target = rng.choice([x for x in LANGUAGES if x != language])
            name = LANGUAGE_NAMES[language][target]
            response = say(meaning, random_wording(rng, target))
        elif kind == "rephrase":
            response = say(meaning, reworded(wording, rng))
        elif kind == "list":
            colourless = meaning._replace(colour=0)
            if colourless in lists:
                pool.give_back(meaning)
                continue
            lists.add(colourless)
            response = _parts(meaning, wording)
        else:
            turned = opposite(meaning) if kind == "opposite" else _recoloured(meaning, rng)
            if not pool.take(turned):
                pool.give_back(meaning)
                continue
            # The prompt names the colour in one form, the response may use the other.
            name = SLOTS["colour"][turned.colour][language][rng.randrange(FORMS)]
            response = say(turned, random_wording(rng, language))
        prompt = rng.choice(PROMPTS[kind][language]).format(name)
        made += 1
        yield {
            "instruction": prompt + say(meaning, wording),
            "response": response,
            "lang": language,
            "source": f"generated/{kind}",
        }
