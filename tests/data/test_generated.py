"""The generated data set: repeatable, clean, disjoint over splits, and honest as a test."""

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from polyqwen.data.generated import build, generate
from polyqwen.data.generated.labels import WORDS
from polyqwen.data.generated.phrases import LANGUAGES
from polyqwen.data.generated.scenes import Thing
from polyqwen.data.generated.sentences import SLOTS, Meaning, opposite
from polyqwen.data.generated.text_pairs import score
from polyqwen.data.generated.vqa import ELSE, EVERYTHING, inventory

Row = dict[str, Any]

SPLITS = ("train", "dev", "test")
TRAIN_ROWS, EVAL_ROWS = 1200, 400
COLUMNS = {
    "text_pair": {"text_a", "text_b", "score", "lang", "source"},
    "ocr": {"image", "text", "lang", "source"},
    "vqa_single": {"image", "question", "answer", "negatives", "lang", "source"},
    "vqa_multi": {"image", "turns", "negatives", "lang", "source"},
    "instruction": {"instruction", "response", "lang", "source"},
    "text_labels": {"text", "labels", "lang", "source"},
}
PICTURED = ("ocr", "vqa_single", "vqa_multi")


class Data:
    """The generated rows, by task and split, and what the pictures say they show."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[tuple[str, str], list[Row]] = {}
        for task in COLUMNS:
            for split in SPLITS:
                lines = (root / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
                self.rows[task, split] = [json.loads(line) for line in lines]

    def shown(self, image: str) -> str:
        with Image.open(self.root / image) as picture:
            return picture.text["content"]  # type: ignore[attr-defined]

    def scene(self, image: str) -> frozenset[Thing]:
        things = (thing.split() for thing in self.shown(image).split("; "))
        return frozenset(Thing(shape, colour) for colour, shape in things)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("generated") / "data"
    return Data(generate(root, seed=3, train_rows=TRAIN_ROWS, eval_rows=EVAL_ROWS))


def last(row: Row) -> Row:
    """The turn to be answered."""
    return row["turns"][-1] if "turns" in row else row


def document(task: str, row: Row) -> str:
    if task == "text_pair":
        return row["text_b"]
    if task in ("vqa_single", "vqa_multi"):
        return last(row)["answer"]
    return row["text" if task == "ocr" else "response"]


def asked(row: Row) -> str:
    """All text a model is given with the picture: the history and the question."""
    if "turns" not in row:
        return row.get("question", "")
    before = [turn["question"] + "\t" + turn["answer"] for turn in row["turns"][:-1]]
    return "\n".join([*before, row["turns"][-1]["question"]])


def whole(row: Row) -> bool:
    """Whether everything in the picture, or all the rest, is asked for."""
    phrasings = (*EVERYTHING.values(), *ELSE.values())
    return any(last(row)["question"] in some for some in phrasings)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


# Writing


def test_same_seed_same_bytes_other_seed_other_rows(tmp_path: Path) -> None:
    first = files(generate(tmp_path / "first", seed=5, train_rows=40, eval_rows=10))
    again = files(generate(tmp_path / "again", seed=5, train_rows=40, eval_rows=10))
    other = files(generate(tmp_path / "other", seed=6, train_rows=40, eval_rows=10))
    assert first == again
    assert len(first) > 100
    for name in ("text_pair/train.jsonl", "ocr/test.jsonl", "images/vqa_single/dev/000000.png"):
        assert first[name] != other[name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "first", "other"]


def test_test_rows_do_not_depend_on_train_rows(tmp_path: Path) -> None:
    small = files(generate(tmp_path / "small", train_rows=5, eval_rows=10))
    large = files(generate(tmp_path / "large", train_rows=50, eval_rows=10))
    for name, content in small.items():
        if "train" not in name and name != build.MANIFEST:
            assert content == large[name], name


def test_complete_set_is_reused_and_another_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = generate(tmp_path / "set", train_rows=10, eval_rows=10)
    made = (root / "ocr" / "test.jsonl").stat().st_mtime_ns
    generate(root, train_rows=10, eval_rows=10)
    assert (root / "ocr" / "test.jsonl").stat().st_mtime_ns == made
    generate(root, train_rows=20, eval_rows=10)
    assert len((root / "ocr" / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    monkeypatch.setattr(build, "VERSION", build.VERSION + 1)
    made = (root / "ocr" / "test.jsonl").stat().st_mtime_ns
    generate(root, train_rows=20, eval_rows=10)
    assert (root / "ocr" / "test.jsonl").stat().st_mtime_ns != made
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterable[Row]:
        yield {"text_a": "a"}
        raise RuntimeError("disk full")

    monkeypatch.setattr(build, "instruction_rows", broken)
    with pytest.raises(RuntimeError, match="disk full"):
        generate(tmp_path / "set", train_rows=10, eval_rows=10)
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_rows=0"):
        generate(tmp_path / "set", train_rows=0)
    with pytest.raises(ValueError, match="lower train_rows"):
        generate(tmp_path / "set", train_rows=10**6)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="give another folder"):
        generate(tmp_path, train_rows=10, eval_rows=10)
    assert (tmp_path / "mine.txt").read_text() == "precious"


# Rows


def test_columns_sizes_and_nfc(data: Data) -> None:
    for (task, split), rows in data.rows.items():
        assert len(rows) == (TRAIN_ROWS if split == "train" else EVAL_ROWS)
        assert all(set(row) == COLUMNS[task] for row in rows)
        languages = {"en", "vi"} if task == "text_labels" else set(LANGUAGES)
        assert {row["lang"] for row in rows} == languages
        text = (data.root / task / f"{split}.jsonl").read_text(encoding="utf-8")
        assert unicodedata.is_normalized("NFC", text)
        assert "\\u" not in text


def test_pictures_open_and_have_whole_cells(data: Data) -> None:
    for (task, _), rows in data.rows.items():
        for name in {row["image"] for row in rows} if task in PICTURED else ():
            with Image.open(data.root / name) as picture:
                picture.load()
                width, height = picture.size
            assert width % 28 == height % 28 == 0
            assert height <= 112
            assert width <= 280
            assert task == "ocr" or (width, height) == (56, 56)


def test_scores_cover_the_range(data: Data) -> None:
    for split in SPLITS:
        scores = [row["score"] for row in data.rows["text_pair", split]]
        shares = {level: count / len(scores) for level, count in Counter(scores).items()}
        assert set(shares) == {level / 10 for level in range(11)}
        assert shares[1.0] >= 0.35
        assert min(shares.values()) >= 0.045


# Meaning: an independent reader of the sentences


def understand(text: str) -> Meaning:
    """Reads a sentence back: the longest known form first, each slot once."""
    rest = text.lower()
    known = [
        (spelt, slot, concept)
        for slot, concepts in SLOTS.items()
        for concept, by_language in enumerate(concepts)
        for language in LANGUAGES
        for form in by_language[language]
        for spelt in form.split(":")
    ]
    found: dict[str, int] = {}
    for spelt, slot, concept in sorted(known, key=lambda form: -len(form[0])):
        at = rest.find(spelt)
        whole = at >= 0 and (
            not (rest[at - 1 : at].isalpha() or rest[at + len(spelt) :][:1].isalpha())
            or any("\u4e00" <= sign <= "\u9fff" for sign in spelt)
        )
        if whole and slot not in found:
            found[slot] = concept
            rest = rest[:at] + "|" + rest[at + len(spelt) :]
    return Meaning(**found)


def sentence(instruction: str) -> str:
    """The sentence an instruction is about."""
    return instruction.replace("：", ": ").partition(": ")[2]


def test_forms_are_unambiguous() -> None:
    for slot, concepts in SLOTS.items():
        for language in LANGUAGES:
            forms = [form for concept in concepts for form in concept[language]]
            assert len(set(forms)) == len(forms) == 2 * len(concepts), (slot, language)


def test_scores_are_the_share_of_equal_slots(data: Data) -> None:
    for row in data.rows["text_pair", "test"]:
        assert row["score"] == score(understand(row["text_a"]), understand(row["text_b"])), row


def test_instructions_are_carried_out(data: Data) -> None:
    for row in data.rows["instruction", "test"]:
        kind = row["source"].partition("/")[2]
        meaning = understand(sentence(row["instruction"]))
        if kind != "list":
            answered = understand(row["response"])
            if kind == "recolour":
                assert answered.colour != meaning.colour
                meaning = meaning._replace(colour=answered.colour)
            assert answered == (opposite(meaning) if kind == "opposite" else meaning), row


def contents(data: Data, task: str, split: str) -> set[object]:
    rows = data.rows[task, split]
    if task == "text_pair":
        return {understand(row[side]) for row in rows for side in ("text_a", "text_b")}
    if task == "instruction":
        return {understand(sentence(row["instruction"])) for row in rows}
    if task == "ocr":
        return {row["text"] for row in rows}
    return {data.scene(row["image"]) for row in rows}


def test_splits_share_no_content(data: Data) -> None:
    # Sentences are shared by two tasks, scenes too: a test meaning is in no task's train rows.
    for tasks in (("text_pair", "instruction"), ("ocr",), ("vqa_single", "vqa_multi")):
        seen = {split: set().union(*(contents(data, t, split) for t in tasks)) for split in SPLITS}
        for one, two in combinations(SPLITS, 2):
            assert len(seen[one]) > 100
            assert not seen[one] & seen[two], (tasks, one, two)
    responses = [r["response"] for s in SPLITS for r in data.rows["instruction", s]]
    assert len(set(responses)) == len(responses)


def test_equal_meanings_have_one_document(data: Data) -> None:
    rows = data.rows["text_pair", "test"]
    bases = [understand(row["text_a"]) for row in rows]
    assert len(set(bases)) == len(rows)
    others = {understand(row["text_b"]) for row in rows if row["score"] < 1}
    assert not others & set(bases)


def test_ocr_words_are_seen_in_train(data: Data) -> None:
    def pieces(split: str) -> set[str]:
        rows = data.rows["ocr", split]
        return {w for r in rows for w in (r["text"] if r["lang"] == "zh" else r["text"].split())}

    assert pieces("test") <= pieces("train")
    assert len(pieces("train")) < 120
    for split in SPLITS:
        rows = data.rows["ocr", split]
        assert len({row["text"] for row in rows}) == len(rows)
        assert all(data.shown(row["image"]) == row["text"] for row in rows[:50])


def test_pools_are_large(data: Data) -> None:
    for task in COLUMNS.keys() - {"text_labels"}:
        rows = [row for row in data.rows[task, "test"] if row.get("score", 1.0) == 1.0]
        assert len({document(task, row) for row in rows}) >= 130, task
    for task in ("vqa_single", "vqa_multi"):
        assert len({document(task, row) for row in data.rows[task, "train"]}) >= 100


def test_labels_are_partial_and_told_by_words(data: Data) -> None:
    rows = data.rows["text_labels", "train"]
    counts = Counter(len(row["labels"]) for row in rows)
    assert set(counts) == {0, 1, 2} and min(counts.values()) > 50
    for row in rows:
        for label, name in row["labels"].items():
            told = WORDS["sentiment"][name.removeprefix("very_")] if label == "sentiment5" else None
            assert any(word in row["text"] for word in told or WORDS[label][name])
    said = Counter(row["text"] for split in SPLITS for row in data.rows["text_labels", split])
    assert max(said.values()) == 1


# Honesty: what can be had without understanding


@pytest.mark.parametrize(("analyzer", "ngrams"), [("word", (1, 2)), ("char_wb", (2, 4))])
def test_word_overlap_does_not_give_the_score(
    data: Data, analyzer: str, ngrams: tuple[int, int]
) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = text.TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams)
    vectorizer.fit(row[s] for row in data.rows["text_pair", "train"] for s in ("text_a", "text_b"))
    rows = data.rows["text_pair", "test"]
    a, b = (vectorizer.transform(row[side] for row in rows) for side in ("text_a", "text_b"))
    cosine = np.asarray(a.multiply(b).sum(axis=1)).ravel()
    assert cosine.std() > 0.1
    correlation = spearmanr(cosine, [row["score"] for row in rows])[0]
    assert correlation <= 0.6
    # The same texts do hold the score: a reader of meanings gets it all (tested above).


Key = Callable[[Row], str]


def guesser(task: str, rows: list[Row], *keys: Key) -> Callable[[Row], str]:
    """The most frequent document under the first key that was seen before, else of all rows."""
    counts: list[dict[str, Counter[str]]] = [defaultdict(Counter) for _ in keys]
    for row in rows:
        for count, key in zip(counts, keys, strict=True):
            count[key(row)][document(task, row)] += 1
    usual = Counter(document(task, row) for row in rows).most_common(1)[0][0]

    def guess(row: Row) -> str:
        for count, key in zip(counts, keys, strict=True):
            if key(row) in count:
                return count[key(row)].most_common(1)[0][0]
        return usual

    return guess


def hits(task: str, rows: list[Row], guess: Callable[[Row], str]) -> float:
    return sum(guess(row) == document(task, row) for row in rows) / len(rows)


def ending(row: Row) -> str:
    return last(row).get("question", "")


@pytest.mark.parametrize("task", PICTURED)
def test_question_without_picture_is_no_use(data: Data, task: str) -> None:
    test, train = data.rows[task, "test"], data.rows[task, "train"]
    assert hits(task, test, guesser(task, train, asked, ending)) <= 0.10
    if task == "ocr":  # nothing is asked
        return
    # Not vacuous: the questions were seen, and with the picture every answer is certain.
    seen = {ending(row) for row in train}
    assert sum(ending(row) in seen for row in test) / len(test) >= 0.95
    both = guesser(task, test, lambda row: row["image"] + "\n" + asked(row))
    assert hits(task, test, both) == 1.0


@pytest.mark.parametrize("task", ["vqa_single", "vqa_multi"])
def test_picture_without_question_is_half_at_most(data: Data, task: str) -> None:
    test = data.rows[task, "test"]
    only_picture = hits(task, test, guesser(task, test, lambda row: row["image"]))
    assert 0.2 <= only_picture <= 0.5  # above chance: the oracle does know the picture


def test_answers_are_what_the_pictures_show(data: Data) -> None:
    about_one = about_all = 0
    for row in data.rows["vqa_single", "test"]:
        things = data.scene(row["image"])
        if whole(row):
            assert row["answer"] == inventory(things, row["lang"])
            about_all += 1
        elif row["lang"] == "en":
            asked_for = row["question"].rstrip("?.").split()
            named = [x for x in things if {x.shape, x.colour} & set(asked_for)]
            assert len(named) == 1, row
            assert row["answer"] in named[0]
            assert row["answer"] not in asked_for
            about_one += 1
    assert min(about_one, about_all) > 30


def test_conversations_need_their_history(data: Data) -> None:
    rows = data.rows["vqa_multi", "test"]
    assert {len(row["turns"]) for row in rows} == {2, 3}
    # One ending and many answers, so the ending alone is no use.
    answers: dict[str, set[str]] = defaultdict(set)
    for row in data.rows["vqa_multi", "train"]:
        answers[ending(row)].add(last(row)["answer"])
    assert sum(len(answers[ending(row)]) >= 4 for row in rows) / len(rows) >= 0.8
    # And some endings name nothing: all objects that no earlier turn spoke of.
    rest = [row for row in rows if whole(row)]
    assert len(rest) >= 30
    for row in rest:
        things = data.scene(row["image"])
        assert last(row)["answer"] != inventory(things, row["lang"])
        count = len(last(row)["answer"].replace("，", ", ").split(", "))
        assert count == len(things) - (len(row["turns"]) - 1)


@pytest.mark.parametrize("task", ["vqa_single", "vqa_multi"])
def test_negatives_are_wrong_answers_of_the_same_picture(data: Data, task: str) -> None:
    rows = data.rows[task, "test"]
    assert sum(bool(row["negatives"]) for row in rows) / len(rows) >= 0.6
    for row in rows:
        assert document(task, row) not in row["negatives"]
