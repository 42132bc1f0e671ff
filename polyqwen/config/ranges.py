"""Ranges of numbers that can be told without building anything.

Constructors check their own; here stand those whose constructors need the heavy imports, so that
they too are refused within a second or two.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

from polyqwen.config.errors import ConfigError, suggest
from polyqwen.config.nested import entries, matching

AT_LEAST_1 = (  # patterns of keys
    *("total_steps", "validate_every", "eval_steps", "gallery_rows"),
    *("data.batch_size", "data.rows_per_task"),
    *("data.rows_per_task.*", "data.eval_batch_size", "data.eval_rows", "data.chunk_tokens"),
    *("data.pad_to_multiple", "data.min_visual_tokens", "data.max_visual_tokens"),
    *("data.source.train_rows", "data.source.eval_rows", "tasks.*.visual_tokens"),
    *("model.tokens.max_tokens", "trainer.num_nodes", "trainer.accumulate_grad_batches"),
    *("callbacks.*.max_bad_steps", "callbacks.*.every"),
)
AT_LEAST_0 = (
    *("phase1_steps", "schedule_steps", "callbacks.*.steps"),
    *("data.seed", "data.picture_cache_mb", "data.trusted_rows"),
    *("model.encoder.residual_init", "optimizer.*_weight_decay", "callbacks.*.boost_steps"),
    "callbacks.*.refresh_rate",
)
ABOVE_0 = (
    *("optimizer.*_lr", "callbacks.*.factor"),
    *("callbacks.gradient_clip.start", "callbacks.gradient_clip.end"),
)
RANGES: dict[str, tuple[float, float]] = {  # pattern of keys -> lowest and highest value
    **dict.fromkeys(AT_LEAST_1, (1, inf)),
    **dict.fromkeys(AT_LEAST_0, (0, inf)),
    **dict.fromkeys(ABOVE_0, (1e-12, inf)),
    "seed": (0, 2**32 - 1),
    "data.num_workers": (0, 512),
    "data.max_bad_share": (0.0, 1.0),
    "model.projection.output_size": (1, 65536),
    "optimizer.warmup_fraction": (0.0, 0.999),
    "optimizer.final_fraction": (0.0, 1.0),
    "trainer.devices": (-1, 4096),  # -1: all there are
}
ATTENTION = ("sdpa", "packed", "eager", "flash_attention_2", "flash_attention_3")
# pattern of keys -> options, where the annotation says no more than "a text"
OPTIONS: dict[str, tuple[str, ...]] = {
    "split": ("train", "dev", "test"),
    "data.bad_rows": ("error", "skip"),
    "model.tokens.prefix_mode": ("token", "text", "none"),
    "model.encoder.attention": ATTENTION,
    "trainer.accelerator": ("auto", "cpu", "cuda", "gpu", "mps", "tpu"),
    "callbacks.*.mode": ("min", "max"),
}


def check_ranges(values: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for the first number out of its range or word that is no option."""
    for where, _, value in entries(values):
        if isinstance(value, str):
            options = matching(OPTIONS, where)
            if options is not None and value not in options:
                raise ConfigError(where, f"{value!r} is not an option", suggest(value, options))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(where, value)


def _check_number(where: str, value: float) -> None:
    low, high = matching(RANGES, where) or (-inf, inf)
    if not low <= value <= high:
        most = "" if high == inf else f" and at most {high}"
        least = "above 0" if 0 < low < 1 else f"at least {low:g}"
        raise ConfigError(where, f"must be {least}{most}, got {value}")
    if where == "trainer.devices" and value == 0:
        raise ConfigError(where, "must be at least 1 (or -1 for all), got 0")
