"""Partially labelled texts: short remarks whose words tell some of their classes.

A row says something in up to two of the label tasks' vocabularies and has a label for one, several
or none of them; words without a label are there too, as in real collections.
"""

import random
from collections.abc import Iterator
from typing import Any

from polyqwen.data.generated.phrases import PHRASES

# label → class → words that tell it; where there are six, three are English and three Vietnamese
WORDS: dict[str, dict[str, list[str]]] = PHRASES["label_words"]
FILLERS: dict[str, list[str]] = PHRASES["label_fillers"]
STRENGTH: dict[str, list[str]] = PHRASES["label_strength"]
GROUPS = (("sentiment", "topic"), ("sentiment",), ("question_type",), ("intent",))
UNLABELLED = 0.1  # share of rows without any label


def label_rows(rng: random.Random, count: int, texts: set[str]) -> Iterator[dict[str, Any]]:
    """Rows with text, labels, lang and source.

    Args:
        rng: the source of all choices.
        count: number of rows.
        texts: what has been said in all splits; each text is said once.
    """
    for _ in range(count):
        row = _row(rng)
        while row["text"] in texts:
            row = _row(rng)
        texts.add(row["text"])
        yield row


def _row(rng: random.Random) -> dict[str, Any]:
    group = rng.choice(GROUPS)
    lang = rng.choice(("en", "vi")) if "sentiment" in group else "en"
    labels, said = {}, []
    for label in group:
        name = rng.choice(tuple(WORDS[label]))
        words = WORDS[label][name]
        labels[label] = name
        said.append(rng.choice(words[3:] if lang == "vi" else words[:3]))
    if group == ("sentiment",):  # five grades: the stronger one says so
        strong, name = rng.randrange(2), labels["sentiment"]
        labels["sentiment5"] = f"very_{name}" if strong and name != "neutral" else name
        said.append(STRENGTH[lang][strong])
    said += [*rng.sample(FILLERS[lang], rng.randrange(1, 4)), str(rng.randrange(1000))]
    rng.shuffle(said)
    if rng.random() < UNLABELLED:
        labels = {}
    elif group == ("sentiment", "topic") and rng.random() < 0.3:
        del labels[rng.choice(group)]
    return {"text": " ".join(said), "labels": labels, "lang": lang, "source": "generated/labels"}
