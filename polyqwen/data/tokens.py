"""Texts to token ids: a tokenizer and the task prefixes; no row can forge a special token.

`train_tokenizer` makes a small one.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, cast

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from polyqwen.models.loading import Vocabulary

PICTURE = ("vision_start", "image_pad", "vision_end")
# Characters that stand for a token at most: what lies behind so many is cut before it is tokenised,
# which takes a hundred times the memory of the text. The longest runs of spaces are 128 to a token.
CHARACTERS = 128
PrefixMode = Literal["token", "text", "none"]


class Tokens:
    """The tokenizer with the task prefixes.

    Args:
        tokenizer: folder or hub id.
        prefixes: task → its prefix, such as ``<ocr>``.
        prefix_mode: ``token`` adds each prefix as one new token, ``text`` writes it as plain text,
            ``none`` leaves it out.
        max_tokens: longest text in tokens, > 0; longer texts are cut at the end.
        revision: hub commit, tag or branch; None for folders.

    Attributes:
        start: ids before every content's prefix.
        end: ids at the end of every content.
        around_pictures: ids before a picture, of one visual token, and after it; None where there
            is none.
    """

    def __init__(
        self,
        tokenizer: str,
        *,
        prefixes: dict[str, str],
        prefix_mode: PrefixMode = "token",
        max_tokens: int = 512,
        revision: str | None = None,
    ) -> None:
        if prefix_mode not in ("token", "text", "none"):
            raise ValueError(f"tokens.prefix_mode must be token, text or none, got {prefix_mode!r}")
        if max_tokens < 1:
            raise ValueError(f"tokens.max_tokens must be at least 1, got {max_tokens}")
        self.max_tokens, self.prefix_mode, self.prefixes = max_tokens, prefix_mode, dict(prefixes)
        self.tokenizer = cast(
            PreTrainedTokenizerFast,
            AutoTokenizer.from_pretrained(tokenizer, revision=revision, trust_remote_code=False),
        )
        before = len(self.tokenizer)
        if prefix_mode == "token":
            self.tokenizer.add_tokens(list(prefixes.values()), special_tokens=True)
        # now, and once: encoding leaves its truncation in the tokenizer's state
        state = self.tokenizer.backend_tokenizer.to_str() + f"|{max_tokens}"
        self._fingerprint = hashlib.blake2b(state.encode(), digest_size=8).hexdigest()
        self.new_tokens = {
            cast(str, self.tokenizer.convert_ids_to_tokens(i)): i
            for i in range(before, len(self.tokenizer))
        }
        added = self.tokenizer.get_added_vocab()
        self._added = set(added.values())
        self._special = re.compile("|".join(map(re.escape, added)) or r"(?!)")
        self.start, self.end = self._frame()
        vocabulary = self.tokenizer.get_vocab()
        self.around_pictures = [vocabulary.get(f"<|{name}|>") for name in PICTURE]
        self.vocabulary = Vocabulary(
            size=max(vocabulary.values()) + 1,
            new_tokens=tuple(self.new_tokens.values()),
            image_id=self.around_pictures[1],
        )
        self._prefix = {
            task: [] if prefix_mode == "none" else self._prefix_ids(prefix, prefix_mode)
            for task, prefix in prefixes.items()
        }

    def _frame(self) -> tuple[list[int], list[int]]:
        """What stands at both ends of every content: [CLS] … [SEP], or … end of text."""
        t = self.tokenizer
        if t.cls_token_id is not None and t.sep_token_id is not None:
            return [t.cls_token_id], [t.sep_token_id]
        return [], [] if t.eos_token_id is None else [t.eos_token_id]

    def _prefix_ids(self, prefix: str, mode: PrefixMode) -> list[int]:
        if mode == "token":
            return [cast(int, self.tokenizer.convert_tokens_to_ids(prefix))]
        return self.encode([prefix])[0]

    @property
    def pad_id(self) -> int:
        """Stands at padding; any id will do there, since padding is masked."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def image_id(self) -> int | None:
        """The placeholder of one visual token; None if the tokenizer knows no pictures."""
        return self.vocabulary.image_id

    def fingerprint(self) -> str:
        """Changes whenever the ids of any text could change (prefixes are added later)."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, cut to `max_tokens`; a spelled-out special token stays plain text."""
        texts = self._shortened(texts)
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=True,
            max_length=self.max_tokens,
        )["input_ids"]
        return [
            self._defused(text) if self._added.intersection(ids) else ids
            for text, ids in zip(texts, encoded, strict=True)
        ]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of texts before they are cut; of the longest, those of `CHARACTERS` · max_tokens.

        Some more where a special token is spelled out, which is not looked for.
        """
        encoded = self.tokenizer(
            self._shortened(texts), add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        return [len(ids) for ids in encoded]

    def spells_special(self, text: str) -> bool:
        """Whether a text spells out a special token (`encode` leaves it plain text)."""
        return self._special.search(text) is not None

    def _shortened(self, texts: Sequence[str]) -> list[str]:
        return [text[: CHARACTERS * self.max_tokens] for text in texts]

    def _defused(self, text: str) -> list[int]:
        """Ids of a text in which an added token was found all the same: that token in two halves.

        `split_special_tokens` spares added tokens that are not marked special.
        """
        pieces = [text]
        for token in sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True):
            pieces = [part for piece in pieces for part in _cut_inside(piece, token)]
        ids = [
            i
            for part in self.tokenizer(pieces, add_special_tokens=False, split_special_tokens=True)[
                "input_ids"
            ]
            for i in part
        ]
        return [i for i in ids if i not in self._added][: self.max_tokens]

    def prefix(self, task: str) -> tuple[int, ...]:
        """Ids of a task's prefix; tasks with the same one frame a text alike."""
        return tuple(self._prefix[task])

    def frame(self, task: str, text_ids: Sequence[int], visual_tokens: int) -> list[int]:
        """The whole content: start, prefix, picture placeholders, text, end."""
        ids = [*self.start, *self._prefix[task]]
        if visual_tokens:
            before, placeholder, after = self.around_pictures
            if placeholder is None:
                raise ValueError(
                    f"a row of task {task} has a picture, but the tokenizer has no <|image_pad|>; "
                    "choose a multimodal model or tasks without pictures"
                )
            ids += [] if before is None else [before]
            ids += [placeholder] * visual_tokens
            ids += [] if after is None else [after]
        return [*ids, *text_ids, *self.end]


def _cut_inside(text: str, token: str) -> list[str]:
    """Cuts a text after the first character of every occurrence of `token`."""
    first, *rest = text.split(token)
    pieces = [first]
    for part in rest:
        pieces[-1] += token[0]
        pieces.append(token[1:] + part)
    return pieces


END = "<|endoftext|>"
SPECIAL = (END, "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> Path:
    """Learns merges from texts and writes the tokenizer.

    Byte-level, so any text of any language can be written with it; the merges decide how short.

    Args:
        texts: what the tokenizer should be good at.
        vocab_size: tokens in all, >= 262 (256 bytes and the special tokens).
        folder: where to write.
    """
    smallest = 256 + len(SPECIAL)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest}, got {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # One character of Chinese and one digit carry a meaning each; merged, they would be
            # learned once per phrase and once per number.
            pre_tokenizers.Split(Regex(r"\p{Han}|\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=list(SPECIAL[1:]),
    )
    fast.save_pretrained(folder)
    return folder
