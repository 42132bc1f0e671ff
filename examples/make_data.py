"""Draws the small data sets of the examples: python examples/make_data.py NAME --to FOLDER."""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

Rows = dict[str, list[dict[str, Any]]]  # of a split
SIZES = {"train": 160, "dev": 24, "test": 24}

THINGS = ["parcel", "invoice", "password", "subscription", "refund", "contract", "card", "address"]
DOINGS = ["change", "cancel", "find", "renew", "check", "confirm", "lose", "print"]
WHO = ["I", "my colleague", "a new user", "our office"]
WHEN = ["today", "next month", "at the weekend", "from abroad"]
SHOPS = ["KEDAI JAYA", "ABC MART", "TAN STORES", "LIM & SONS", "CITY BOOKS", "GREEN CAFE"]
GOODS = ["RICE", "TEA", "PAPER", "SOAP", "BREAD", "CABLE", "LAMP", "SUGAR", "PENS", "MILK"]
PRAISE = ["quick", "friendly", "clear", "excellent", "helpful"]
BLAME = ["slow", "rude", "confusing", "broken", "useless"]
OPENINGS = ["the answer was", "our teacher is", "this lecture felt", "the office was"]


def text_pairs(folder: Path, random_: random.Random) -> None:
    """Questions of customers and the help page that answers each: columns ask, page."""
    asked = [
        {
            "ask": f"how can {who} {doing} the {thing} {when}?",
            "page": f"{doing.capitalize()} a {thing}: open Account, choose {thing.capitalize()}s, "
            f"then {doing.capitalize()}. Works {when}.",
        }
        for who in WHO
        for doing in DOINGS
        for thing in THINGS
        for when in WHEN
    ]
    _write_jsonl(folder / "faq", _split(asked, random_))


def documents(folder: Path, random_: random.Random) -> None:
    """Scanned receipts (columns file, words) and questions on them (file, ask, reply)."""
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    texts: Rows = {}
    questions: Rows = {}
    for split, number in SIZES.items():
        texts[split], questions[split] = [], []
        for i in range(number // 2):  # a receipt's rows stay on one side of the split
            file = f"scans/{split}_{i:03d}.png"
            shop, total, lines = _receipt(random_)
            _draw(lines, folder / file)
            texts[split].append({"file": file, "words": "\n".join(lines)})
            questions[split] += [
                {"file": file, "ask": "which shop is it?", "reply": shop},
                {"file": file, "ask": "what is the total?", "reply": total},
            ]
    _write_jsonl(folder / "receipt_text", texts)
    _write_jsonl(folder / "receipt_question", questions)


def sentences(folder: Path, random_: random.Random) -> None:
    """Sentences and their mood (columns sentence, mood), as Parquet; some have no label."""
    said = [
        {"sentence": f"{opening} {word}, {more} {when}", "mood": mood}
        for opening in OPENINGS
        for mood, words in (("good", PRAISE), ("bad", BLAME))
        for word in words
        for more in ("really", "I think", "as ever", "once more")
        for when in ("today", "this term", "again")
    ]
    splits = _split(said, random_)
    for row in splits["train"][::10]:
        row["mood"] = None
    (folder / "mood").mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / "mood" / f"{split}.parquet")


def _split(rows: list[dict[str, Any]], random_: random.Random) -> Rows:
    drawn: Iterator[dict[str, Any]] = iter(random_.sample(rows, sum(SIZES.values())))
    return {split: [next(drawn) for _ in range(number)] for split, number in SIZES.items()}


def _write_jsonl(folder: Path, splits: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def _receipt(random_: random.Random) -> tuple[str, str, list[str]]:
    shop = random_.choice(SHOPS)
    bought = [(good, random_.randint(100, 3000)) for good in random_.sample(GOODS, 3)]
    total = f"{sum(price for _, price in bought) / 100:.2f}"
    goods = [f"{good} {price / 100:.2f}" for good, price in bought]
    return shop, total, [shop, *goods, f"TOTAL {total}"]


def _draw(lines: list[str], path: Path) -> None:
    picture = Image.new("L", (168, 140), 255)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    for i, line in enumerate(lines):
        draw.text((6, 4 + 26 * i), line, fill=0, font=font)
    picture.save(path)


def main() -> None:
    """Reads the command line and draws."""
    examples = {"text_pairs": text_pairs, "documents": documents, "sentences": sentences}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(examples))
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    examples[arguments.name](arguments.to, random.Random(0))
    print(f"written to {arguments.to}")


if __name__ == "__main__":
    main()
