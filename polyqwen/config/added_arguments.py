"""The arguments that the build adds to a node's own keys: read by build, check and precheck."""

from typing import NamedTuple

from polyqwen.config.nested import matching


class Added(NamedTuple):
    """What one node gets beside its own keys.

    Attributes:
        positional: arguments given by position; those of a ``_partial_`` node come when it is
            called.
        keywords: arguments given by name; the configuration must leave them alone.
        optional: likewise, given only to targets that take them.
        hint: where to set such an argument instead.
    """

    positional: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    hint: str = "leave it out"


NOTHING = Added()
ADDED = {  # path of a node, with * for any one key
    "model.tokens": Added(keywords=("prefixes",), hint="set tasks.TASK.prefix"),
    "model.encoder": Added(keywords=("vocabulary",)),
    "model.pooling": Added(("hidden_size",)),
    "model.projection": Added(("hidden_size",)),
    "losses.*": Added(optional=("embedding_size",), hint="set model.projection.output_size"),
    "widths": Added(("loss",)),
    "curriculum": Added(("shares",)),
    "data": Added(
        keywords=("tasks", "tokens", "curriculum", "separate"), hint="choose model/sharing"
    ),
    "optimizer": Added(("backbone", "head"), ("total_steps",), hint="use curriculum.total_steps"),
    "callbacks.dashboard": Added(optional=("configuration", "hyperparameters")),
    "trainer": Added(
        keywords=(
            *("max_steps", "val_check_interval", "check_val_every_n_epoch"),
            *("num_sanity_val_steps", "log_every_n_steps", "use_distributed_sampler"),
            *("default_root_dir", "inference_mode", "callbacks", "logger", "plugins"),
        ),
        hint="use curriculum.total_steps, validate_every, run_dir, callbacks or logger",
    ),
}


def added_to(path: str) -> Added:
    """What the node at a dotted path gets; `NOTHING` for one that is built with its own keys."""
    return matching(ADDED, path) or NOTHING
