"""What no text of a resolved configuration may hold."""

from collections.abc import Iterator, Mapping
from typing import Any

from polyqwen.config.errors import ConfigError
from polyqwen.config.toplevel import FREE

# what transformers takes code from, in a model's own configuration
CODE = ("_attn_implementation", "attn_implementation", "auto_map", "trust_remote_code")


def check_texts(values: Mapping[str, Any]) -> None:
    """Refuses texts that would be read once more, and addresses.

    A ``${`` that is left would be resolved when a saved configuration is read again, after all
    checks. A ``…://`` would make Lightning open a remote file system, or load a checkpoint from it
    with less care than from a disk.

    Raises:
        ConfigError: naming the key.
    """
    for path, text in _texts(values, ""):
        name = path.rpartition(".")[2]
        if name in CODE and path.partition(".")[0] != FREE:
            raise ConfigError(path, "would bring code along", "leave it out")
        if "${" in text:
            raise ConfigError(
                path, f"still holds ${{ after it was resolved: {text!r}", "write the value itself"
            )
        if "://" in text and path.partition(".")[0] != FREE:
            raise ConfigError(
                path,
                f"{text!r} is an address, and nothing is opened over the network",
                "give a local path",
            )


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else str(key)
            yield where, str(key)
            yield from _texts(inner, where)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{i}]")
