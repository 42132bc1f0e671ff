"""The language of questions and answers about scenes.

One object is named by its shape and asked for its colour, or the other way round; or everything is
asked for. Questions by position are left out on purpose.
"""

import random
from collections.abc import Iterable
from typing import NamedTuple

from polyqwen.data.generated.scenes import SHAPES, Thing

SHAPE_NAMES = {
    "en": {},
    "vi": {
        "circle": "hình tròn",
        "square": "hình vuông",
        "triangle": "hình tam giác",
        "star": "ngôi sao",
        "cross": "chữ thập",
        "moon": "mặt trăng",
        "diamond": "hình thoi",
        "heart": "trái tim",
    },
    "zh": {
        "circle": "圆圈",
        "square": "方块",
        "triangle": "三角",
        "star": "星星",
        "cross": "十字",
        "moon": "月亮",
        "diamond": "菱形",
        "heart": "爱心",
    },
}
COLOUR_NAMES = {
    "en": {},
    "vi": {
        "red": "đỏ",
        "orange": "cam",
        "yellow": "vàng",
        "green": "xanh lá",
        "blue": "xanh dương",
        "purple": "tím",
        "pink": "hồng",
        "grey": "xám",
        "black": "đen",
    },
    "zh": {
        "red": "红色",
        "orange": "橙色",
        "yellow": "黄色",
        "green": "绿色",
        "blue": "蓝色",
        "purple": "紫色",
        "pink": "粉色",
        "grey": "灰色",
        "black": "黑色",
    },
}
_COMMA = {"en": ", ", "vi": ", ", "zh": "，"}

KINDS = ("shape", "colour")  # what names the object

# kind → language → phrasings; {0} is the name of the object's shape or colour.
FULL: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "en": ("What colour is the {0}?", "Name the colour of the {0}."),
        "vi": ("Màu của {0} là gì?", "Hãy nêu màu của {0}."),
        "zh": ("{0}是什么颜色？", "请说{0}的颜色。"),
    },
    "colour": {
        "en": ("What shape is the {0} thing?", "Name the shape of the {0} thing."),
        "vi": ("Hình của vật màu {0} là gì?", "Hãy nêu hình của vật màu {0}."),
        "zh": ("{0}的东西是什么形状？", "请说{0}的东西的形状。"),
    },
}
# Follow-ups: the language and what is asked for follow from the first question.
ELLIPTIC: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "en": ("And the {0}?", "What about the {0}?"),
        "vi": ("Còn {0}?", "Thế {0} thì sao?"),
        "zh": ("{0}呢？", "那{0}呢？"),
    },
    "colour": {
        "en": ("And the {0} one?", "What about the {0} one?"),
        "vi": ("Còn vật màu {0}?", "Thế vật màu {0} thì sao?"),
        "zh": ("{0}的呢？", "那{0}的呢？"),
    },
}
# All objects in full; ELSE asks for those not spoken of yet and so needs the whole history.
EVERYTHING: dict[str, tuple[str, ...]] = {
    "en": ("What is in the picture?", "Describe the picture."),
    "vi": ("Trong hình có gì?", "Hãy tả bức hình."),
    "zh": ("图里有什么？", "请描述这张图。"),
}
ELSE: dict[str, tuple[str, ...]] = {
    "en": ("What else is there?", "And the rest?"),
    "vi": ("Còn gì khác nữa?", "Thế phần còn lại?"),
    "zh": ("还有什么？", "其余的呢？"),
}
_WHOLE = {
    "en": "{colour} {shape}",
    "vi": "{shape} {colour}",
    "zh": "{colour}{shape}",
}


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


def _fill(
    phrasings: dict[str, dict[str, tuple[str, ...]]], thing: Thing, ask: Ask, rng: random.Random
) -> str:
    names = SHAPE_NAMES if ask.kind == "shape" else COLOUR_NAMES
    word = thing.shape if ask.kind == "shape" else thing.colour
    text = rng.choice(phrasings[ask.kind][ask.language]).format(_name(names, ask.language, word))
    return text[0].upper() + text[1:]


def question(thing: Thing, ask: Ask, rng: random.Random) -> str:
    """A question that stands alone."""
    return _fill(FULL, thing, ask, rng)


def follow_up(thing: Thing, ask: Ask, rng: random.Random) -> str:
    """An elliptic question after others asked the same way."""
    return _fill(ELLIPTIC, thing, ask, rng)


def inventory(things: Iterable[Thing], language: str) -> str:
    """All that is to be said about the objects, in the order of SHAPES."""
    ordered = sorted(things, key=lambda thing: SHAPES.index(thing.shape))
    return _COMMA[language].join(
        _WHOLE[language].format(
            shape=_name(SHAPE_NAMES, language, thing.shape),
            colour=_name(COLOUR_NAMES, language, thing.colour),
        )
        for thing in ordered
    )
