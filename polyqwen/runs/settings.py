"""A configuration as one table of values."""

from typing import Any

from omegaconf import OmegaConf


def flat_settings(cfg: Any) -> dict[str, Any]:
    """Every resolved value by its dotted key; lists stay whole."""
    flat: dict[str, Any] = {}

    def visit(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                visit(value, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = node

    visit(OmegaConf.to_container(cfg, resolve=True), "")
    return flat
