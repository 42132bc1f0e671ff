"""A text model out of sentence-transformers' own modules: nobody has to trust any code."""

from pathlib import Path
from typing import Any, cast

from tokenizers.processors import TemplateProcessing

from polyqwen.atomic_files import write_json
from polyqwen.data.tokens import Tokens
from polyqwen.export.folder import (
    NORMALIZE,
    exportable,
    model_settings,
    save_tokenizer,
    write_modules,
)
from polyqwen.inference.model import EmbeddingModel

MODES = {"mean": "mean", "cls": "cls", "last_token": "lasttoken"}
PROBES = ("a text", "  Two  spaces, punctuation: (1,234.5)!", "größer 中文 tiếng Việt", "x")
MODULES = (
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
    NORMALIZE,
)


def save_plain(model: EmbeddingModel, folder: Path) -> dict[str, Any]:
    """Writes the folder; the framing of contents becomes the tokenizer's own.

    Returns:
        The settings, as `polyqwen.export.folder.save` does.

    Raises:
        ValueError: the head is more than built-in modules can do, or the tokenizer would frame
            texts otherwise than in training.
    """
    encoder, head = exportable(model)
    if head.pooling not in MODES or head.projection != "identity":
        raise ValueError(
            f"--plain knows pooling {', '.join(MODES)} and projection identity, and this model has "
            f"{head.pooling} and {head.projection}; leave --plain out"
        )
    settings = model_settings(model, encoder)
    folder.mkdir(parents=True)
    encoder.model.save_pretrained(folder)
    _frame(model.tokens, settings["frames"])
    save_tokenizer(model.tokens, folder)
    longest = settings["tokens"]["max_tokens"] + max(
        len(frame["start"]) + len(frame["end"]) for frame in settings["frames"].values()
    )
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {
                "text": {"method": "forward", "method_output_name": "last_hidden_state"}
            },
            "module_output_name": "token_embeddings",
            "max_seq_length": longest,
        },
    )
    pooling = {"embedding_dimension": head.hidden_size, "pooling_mode": MODES[head.pooling]}
    write_json(folder / "1_Pooling" / "config.json", {**pooling, "include_prompt": True})
    write_json(folder / "2_Normalize" / "config.json", {})
    write_modules(folder, settings, MODULES)
    return settings


def _frame(tokens: Tokens, frames: dict[str, Any]) -> None:
    """Makes the tokenizer put what stands at both ends of a content around any text.

    Raises:
        ValueError: with a task's prompt it would give other ids than training saw.
    """
    tokenizer = tokens.tokenizer
    first = next(iter(frames.values()))
    start, end = tokens.start, first["end"]
    names = [str(tokenizer.convert_ids_to_tokens(i)) for i in [*start, *end]]
    template = [*names[: len(start)], "$A", *names[len(start) :]]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join(f"{part}:0" for part in template),
        special_tokens=list(dict(zip(names, [*start, *end], strict=True)).items()),
    )
    for task, frame in frames.items():
        for text in PROBES:
            wanted = tokens.frame(task, tokens.encode([text.strip()])[0], 0)
            found = cast(list[int], tokenizer(frame["prompt"] + text.strip())["input_ids"])
            if found != wanted:
                raise ValueError(
                    f"--plain: after the prompt {frame['prompt']!r} the tokenizer reads a text "
                    "otherwise than in training; leave --plain out"
                )
