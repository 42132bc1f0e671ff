"""Phrases of the generated data set in three languages, read from ``assets/phrases.yaml``."""

from pathlib import Path
from typing import Any

import yaml

LANGUAGES = ("en", "vi", "zh")
PHRASES: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "assets" / "phrases.yaml").read_text(encoding="utf-8")
)
