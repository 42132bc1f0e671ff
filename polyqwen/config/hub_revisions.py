"""Names on the Hugging Face hub: which version of them is meant."""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polyqwen.config.nested import entries

log = logging.getLogger(__name__)
COMMIT = re.compile("[0-9a-f]{40}")
KEYS = ("name", "tokenizer")  # which hold a hub id where there is a revision


def warn_of_unpinned(values: Mapping[str, Any]) -> None:
    """Says which hub names of a resolved configuration may stand for something else tomorrow.

    A folder on this machine needs no revision; a branch or tag is none, since it can be moved.
    """
    told = set()
    for path, name, revision in hub_names(values):
        if not COMMIT.fullmatch(str(revision)) and name not in told:
            told.add(name)  # the tokenizer's is the model's as a rule
            log.warning(
                "%s is unpinned (revision %s): whoever owns it can change it; set %s.revision to "
                "one of its commits, 40 hex digits",
                *(name, revision, path),
            )


def hub_names(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(dotted path of the node, name, revision) wherever the hub is asked for something."""
    for path, _, node in entries(values):
        if not isinstance(node, Mapping):
            continue
        made = str(node.get("_target_", "")).endswith(".from_pretrained")
        if "revision" in node or made or path.rpartition(".")[0].endswith(".datasets"):
            for key in KEYS:
                name = node.get(key)
                if isinstance(name, str) and not Path(name).expanduser().exists():
                    yield path, name, node.get("revision")
