"""Sentences: one meaning, many wordings (template, synonyms and language).

A meaning is a concept in each of five slots. A concept has two surface forms per language, so that
equal meaning need not be equal wording.
"""

import random
from typing import NamedTuple

from polyqwen.data.generated.phrases import LANGUAGES, PHRASES

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
TEMPLATES: dict[str, list[str]] = PHRASES["templates"]
FORMS = 2  # surface forms of a concept in each language


def opposite(meaning: Meaning) -> Meaning:
    """The same scene with the opposite action (buys ↔ sells, hides ↔ finds, ...)."""
    return meaning._replace(action=meaning.action ^ 1)


class Wording(NamedTuple):
    """How a meaning is said: language, template and the surface form chosen in each slot."""

    language: str
    template: int
    forms: tuple[int, ...]


def random_wording(rng: random.Random, language: str | None = None) -> Wording:
    """A random wording, in ``language`` where one is given."""
    language = language or rng.choice(LANGUAGES)
    forms = tuple(rng.randrange(FORMS) for _ in SLOTS)
    return Wording(language, rng.randrange(len(TEMPLATES[language])), forms)


def reworded(wording: Wording, rng: random.Random) -> Wording:
    """The same language with another template and another synonym in every slot."""
    templates = len(TEMPLATES[wording.language])
    template = (wording.template + rng.randrange(1, templates)) % templates
    return wording._replace(template=template, forms=tuple(1 - form for form in wording.forms))


def words(meaning: Meaning, wording: Wording) -> dict[str, str]:
    """The words a wording picks, by slot; ``done`` is the participle of the action."""
    language, _, forms = wording
    picked = {
        slot: SLOTS[slot][concept][language][form]
        for (slot, concept), form in zip(meaning._asdict().items(), forms, strict=True)
    }
    finite, _, participle = picked["action"].partition(":")
    return picked | {"action": finite, "done": participle or finite}


def say(meaning: Meaning, wording: Wording) -> str:
    """The sentence, with a capital first letter where the script has capitals."""
    text = TEMPLATES[wording.language][wording.template].format(**words(meaning, wording))
    return text[0].upper() + text[1:]


class MeaningPool:
    """Hands out meanings nobody had before, so that no two rows or splits say the same.

    Args:
        capacity: how many meanings will be asked for; rejection sampling stays fast and certain
            to end up to half of all there are.

    Raises:
        ValueError: ``capacity`` is above half the number of meanings the lexicon can say.
    """

    def __init__(self, capacity: int) -> None:
        total = 1
        for size in SIZES:
            total *= size
        if capacity > total // 2:
            raise ValueError(
                f"the rows asked for need {capacity} different meanings and the lexicon gives "
                f"{total // 2}: lower train_rows or eval_rows"
            )
        self._used: set[Meaning] = set()

    def draw(self, rng: random.Random) -> Meaning:
        """A new random meaning, now taken."""
        while True:
            meaning = Meaning(*(rng.randrange(size) for size in SIZES))
            if self.take(meaning):
                return meaning

    def take(self, *meanings: Meaning) -> bool:
        """Takes all the meanings, or none and answers False where one of them is gone."""
        if any(meaning in self._used for meaning in meanings):
            return False
        self._used.update(meanings)
        return True

    def give_back(self, meaning: Meaning) -> None:
        """Frees a meaning that was drawn and not used."""
        self._used.discard(meaning)
