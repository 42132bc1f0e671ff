"""Instructions and their responses: translate, rephrase, turn round, recolour, list the parts."""

import random
from collections.abc import Iterator
from typing import Any

from polyqwen.data.generated.lexicon import COLOURS, FORMS, LANGUAGES, Meaning, opposite
from polyqwen.data.generated.sentences import (
    MeaningPool,
    Wording,
    random_wording,
    reworded,
    say,
    words,
)

KINDS = ("translate", "translate", "rephrase", "opposite", "recolour", "list")  # with shares

# {0}: the name of the target language or colour; the sentence follows.
PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    "translate": {
        "en": ("Translate into {0}: ", "Say this in {0}: "),
        "vi": ("Dịch sang {0}: ", "Nói câu này bằng {0}: "),
        "zh": ("翻译成{0}：", "用{0}说："),
    },
    "rephrase": {
        "en": ("Say it in other words: ", "Rephrase: "),
        "vi": ("Nói cách khác: ", "Diễn đạt lại: "),
        "zh": ("换句话说：", "改写："),
    },
    "opposite": {
        "en": ("Say the opposite: ", "Turn the action round: "),
        "vi": ("Nói điều ngược lại: ", "Đảo ngược hành động: "),
        "zh": ("说相反的：", "把动作反过来："),
    },
    "recolour": {
        "en": ("Make the thing {0}: ", "Change the colour to {0}: "),
        "vi": ("Đổi sang màu {0}: ", "Tô lại thành màu {0}: "),
        "zh": ("把东西变成{0}：", "把颜色换成{0}："),
    },
    "list": {
        "en": ("List who, does what, which thing, where: ", "Name the parts: "),
        "vi": ("Liệt kê ai, làm gì, vật gì, ở đâu: ", "Kể các phần: "),
        "zh": ("列出谁、做什么、什么东西、在哪里：", "说出各部分："),
    },
}
LANGUAGE_NAMES = {
    "en": {"en": "English", "vi": "Vietnamese", "zh": "Chinese"},
    "vi": {"en": "tiếng Anh", "vi": "tiếng Việt", "zh": "tiếng Trung"},
    "zh": {"en": "英语", "vi": "越南语", "zh": "汉语"},
}
_COMMA = {"en": ", ", "vi": ", ", "zh": "、"}


def _parts(meaning: Meaning, wording: Wording) -> str:
    """The sentence without its colour, as a list."""
    picked = words(meaning, wording)
    order = ("subject", "action", "object", "place")
    return _COMMA[wording.language].join(picked[slot] for slot in order)


def _recoloured(meaning: Meaning, rng: random.Random) -> Meaning:
    colours = len(COLOURS)
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
            name = COLOURS[turned.colour][language][rng.randrange(FORMS)]
            response = say(turned, random_wording(rng, language))
        prompt = rng.choice(PROMPTS[kind][language]).format(name)
        made += 1
        yield {
            "instruction": prompt + say(meaning, wording),
            "response": response,
            "lang": language,
            "source": f"generated/{kind}",
        }
