"""Loading pretrained weights: all of them, or an error."""

import sys
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging


def load_pretrained(
    model_class: Any,
    name: str,
    *,
    revision: str | None,
    ignore: tuple[str, ...] = (),
    **kwargs: Any,
) -> PreTrainedModel:
    """`from_pretrained` without remote code, refusing partly matched weights.

    A missing key would leave random weights in the model and an unexpected one means that the
    checkpoint is of another architecture; Hugging Face only warns about either.

    Args:
        model_class: a transformers model or auto class.
        name: hub id or folder.
        revision: hub commit, tag or branch; None for folders.
        ignore: beginnings of keys that may be absent or left over (a head that is not used).

    Raises:
        ValueError: naming the first missing, unexpected or misshapen keys.
    """
    told = logging.get_verbosity()
    logging.set_verbosity_error()  # its own table of what it left out; what matters is said below
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # a log file would hold a thousand of it
    try:
        model, report = model_class.from_pretrained(
            name, revision=revision, trust_remote_code=False, output_loading_info=True, **kwargs
        )
    finally:
        logging.set_verbosity(told)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(k) for k in report[kind] if not str(k).startswith(ignore))
        if keys:
            raise ValueError(
                f"{name}: {len(keys)} {kind.replace('_', ' ')} for {model_class.__name__}, first "
                f"{', '.join(keys[:3])}; the checkpoint is not of this architecture or is "
                "incomplete"
            )
    return model
