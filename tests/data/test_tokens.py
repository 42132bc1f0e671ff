"""Tokenizer, prefixes, and texts that try to be special tokens."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

import polyqwen
from polyqwen.data.tokens import Tokens, train_tokenizer

TINY = Path(polyqwen.__file__).parent / "assets" / "tiny_tokenizer"
PREFIXES = {"ocr": "<ocr>", "text_pair": "<text_pair>"}


def tokens(mode: str = "token", **options: int) -> Tokens:
    return Tokens(str(TINY), prefixes=PREFIXES, prefix_mode=mode, **options)


SHARED = tokens()


def test_prefix_modes() -> None:
    ids = SHARED.encode(["xin chào"])[0]
    end = SHARED.tokenizer.eos_token_id
    prefix = SHARED.tokenizer.convert_tokens_to_ids("<ocr>")
    assert prefix in SHARED.new_tokens.values() and SHARED.vocabulary.size == prefix + 2
    assert SHARED.frame("ocr", ids, 0) == [prefix, *ids, end]
    plain = tokens("text")
    assert plain.frame("ocr", ids, 0) == [*plain.encode(["<ocr>"])[0], *ids, end]
    assert plain.new_tokens == {} and plain.vocabulary.size == SHARED.vocabulary.size - 2
    assert tokens("none").frame("ocr", ids, 0) == [*ids, end]


def test_pictures_stand_between_vision_tokens() -> None:
    vocabulary = SHARED.tokenizer.get_vocab()
    start, pad, end = (vocabulary[f"<|{n}|>"] for n in ("vision_start", "image_pad", "vision_end"))
    framed = SHARED.frame("ocr", [300, 301], 3)
    assert framed[1:] == [start, pad, pad, pad, end, 300, 301, SHARED.tokenizer.eos_token_id]
    assert pad == SHARED.image_id


@pytest.mark.parametrize(
    "text", ["<ocr>", "a<|image_pad|>b", "<|endoftext|>", "<text_pair><ocr>", "x <|vision_start|>"]
)
def test_a_text_never_becomes_a_special_token(text: str) -> None:
    special = set(SHARED.tokenizer.get_added_vocab().values())
    ids = SHARED.encode([text])[0]
    assert not special.intersection(ids)
    assert SHARED.tokenizer.decode(ids) == text  # and nothing of it is lost


@pytest.fixture(scope="module")
def with_a_tool(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """Of a tokenizer with an added token that is not marked as special."""
    tokenizer, folder = tokens().tokenizer, tmp_path_factory.mktemp("tokenizer")
    tokenizer.add_tokens(["<tool>"], special_tokens=False)
    tokenizer.save_pretrained(folder)
    return Tokens(str(folder), prefixes=PREFIXES)


@settings(max_examples=50, deadline=None)
@given(
    a=st.text(max_size=40),
    token=st.sampled_from(["<ocr>", "<|image_pad|>", "<tool>"]),
    b=st.text(),
)
def test_not_even_an_added_token_that_is_not_marked_special(
    with_a_tool: Tokens, a: str, token: str, b: str
) -> None:
    added = with_a_tool.tokenizer.get_added_vocab()
    assert {"<ocr>", "<|image_pad|>", "<tool>"} <= added.keys()
    assert not set(added.values()).intersection(with_a_tool.encode([a + token + b])[0])


def test_long_texts_are_cut() -> None:
    short = tokens(max_tokens=5)
    assert len(short.encode(["một hai ba bốn năm sáu bảy tám"])[0]) == 5
    assert short.fingerprint() != SHARED.fingerprint()


def test_bert_tokenizers_keep_their_frame(tmp_path: Path) -> None:
    vocabulary = {
        w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog"])
    }
    BertTokenizerFast(vocab=vocabulary).save_pretrained(tmp_path)
    bert = Tokens(str(tmp_path), prefixes=PREFIXES, prefix_mode="none")
    assert bert.frame("ocr", bert.encode(["cat dog"])[0], 0) == [2, 5, 6, 3]
    with pytest.raises(ValueError, match=r"no <\|image_pad\|>"):
        bert.frame("ocr", [5], 4)


def test_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    train_tokenizer(["con mèo con chó"] * 50 + ["12 34 猫狗猫狗"] * 50, 300, tmp_path)
    own = Tokens(str(tmp_path), prefixes=PREFIXES)
    assert len(own.encode([" con"])[0]) == 1  # a frequent word is one token
    assert own.encode(["猫狗"])[0] == own.encode(["猫"])[0] + own.encode(["狗"])[0]
    assert own.encode(["12"])[0] == own.encode(["1"])[0] + own.encode(["2"])[0]
    with pytest.raises(ValueError, match="at least 262"):
        train_tokenizer(["a"], 100, tmp_path)


def test_the_command_makes_a_tokenizer_from_a_folder(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polyqwen", "tokenizer", str(folder), "--to", str(tmp_path)]
    result = subprocess.run([*command, "--vocab-size", "512"], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert Tokens(str(tmp_path), prefixes={}).vocabulary.size == 512
    missing = [*command[:4], str(tmp_path / "none"), "--to", str(tmp_path)]
    refused = subprocess.run(missing, capture_output=True, check=False, text=True)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith(f"error: {tmp_path / 'none'} has no <task>/train.jsonl")


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="prefix_mode"):
        tokens("tokens")
    with pytest.raises(ValueError, match="max_tokens"):
        tokens(max_tokens=0)
