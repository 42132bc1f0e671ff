"""What the generated data set says in three languages and draws, read from ``assets``."""

from pathlib import Path
from typing import Any

import yaml


def _asset(name: str) -> dict[str, Any]:
    text = (Path(__file__).parents[2] / "assets" / name).read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


LANGUAGES = ("en", "vi", "zh")
PHRASES = _asset("phrases.yaml")
DRAWINGS = _asset("drawings.yaml")
