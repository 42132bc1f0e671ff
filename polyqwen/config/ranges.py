"""Ranges of numbers that can be told without building anything.

Constructors check their own; here stand those whose constructors need the heavy imports, so that
they too are refused within a second or two.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from polyqwen.config.errors import ConfigError, suggest

# key pattern -> lowest and highest value
NUMBERS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "validate_every": (1, float("inf")),
    "schedule_steps": (0, float("inf")),
    "gallery_rows": (1, float("inf")),
    "data.seed": (0, float("inf")),
    "data.batch_size": (1, float("inf")),
    "data.rows_per_task": (1, float("inf")),
    "data.rows_per_task.*": (1, float("inf")),
    "data.eval_batch_size": (1, float("inf")),
    "data.eval_rows": (1, float("inf")),
    "data.chunk_tokens": (1, float("inf")),
    "data.pad_to_multiple": (1, float("inf")),
    "data.min_visual_tokens": (1, float("inf")),
    "data.max_visual_tokens": (1, float("inf")),
    "data.picture_cache_mb": (0, float("inf")),
    "data.trusted_rows": (0, float("inf")),
    "data.num_workers": (0, 512),
    "data.max_bad_share": (0.0, 1.0),
    "data.source.train_rows": (1, float("inf")),
    "data.source.eval_rows": (1, float("inf")),
    "tasks.*.visual_tokens": (1, float("inf")),
    "model.tokens.max_tokens": (1, float("inf")),
    "model.encoder.residual_init": (0.0, float("inf")),
    "model.projection.output_size": (1, 65536),
    "optimizer.*_lr": (1e-12, float("inf")),
    "optimizer.*_weight_decay": (0.0, float("inf")),
    "optimizer.warmup_fraction": (0.0, 0.999),
    "optimizer.final_fraction": (0.0, 1.0),
    "trainer.devices": (-1, 4096),  # -1: all there are
    "trainer.num_nodes": (1, float("inf")),
    "trainer.accumulate_grad_batches": (1, float("inf")),
    "callbacks.*.factor": (1e-12, float("inf")),
    "callbacks.*.boost_steps": (0, float("inf")),
    "callbacks.*.max_bad_steps": (1, float("inf")),
    "callbacks.*.every": (1, float("inf")),
    "callbacks.*.refresh_rate": (0, float("inf")),
}
# key pattern -> options, where the annotation says no more than "a text"
OPTIONS: dict[str, tuple[str, ...]] = {
    "split": ("train", "dev", "test"),
    "data.bad_rows": ("error", "skip"),
    "model.tokens.prefix_mode": ("token", "text", "none"),
    "model.encoder.attention": (
        "sdpa",
        "packed",
        "eager",
        "flash_attention_2",
        "flash_attention_3",
    ),
    "trainer.accelerator": ("auto", "cpu", "cuda", "gpu", "mps", "tpu"),
    "callbacks.*.mode": ("min", "max"),
}


def check_ranges(values: Mapping[str, Any], path: str = "") -> None:
    """Raises `ConfigError` for the first number out of its range or word that is no option."""
    for key, value in sorted(values.items(), key=lambda item: isinstance(item[1], Mapping)):
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            check_ranges(value, where)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(where, value)
        elif isinstance(value, str):
            for pattern, options in OPTIONS.items():
                if fnmatchcase(where, pattern) and value not in options:
                    raise ConfigError(where, f"{value!r} is not an option", suggest(value, options))


def _check_number(where: str, value: float) -> None:
    for pattern, (low, high) in NUMBERS.items():
        if where.count(".") != pattern.count(".") or not fnmatchcase(where, pattern):
            continue
        if not low <= value <= high:
            most = "" if high == float("inf") else f" and at most {high}"
            least = "above 0" if 0 < low < 1 else f"at least {low:g}"
            raise ConfigError(where, f"must be {least}{most}, got {value}")
    if where == "trainer.devices" and value == 0:
        raise ConfigError(where, "must be at least 1 (or -1 for all), got 0")
