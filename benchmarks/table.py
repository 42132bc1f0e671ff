"""Tables of docs/performance.md out of benchmarks/results, between their markers.

    python -m benchmarks.table [--check]

Each table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. ``--check`` changes nothing
and fails where the page and the results differ.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.tables.engine import engine
from benchmarks.tables.goals import goals
from benchmarks.tables.gpu import gpu
from benchmarks.tables.parts import kernels, memory, overhead
from benchmarks.tables.text import MISSING

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "engine": ("engine.json", engine),
    "goals": ("engine.json", goals),
    "memory": ("memory.json", memory),
    "overhead": ("overhead.json", overhead),
    "kernels": ("kernels.json", kernels),
    "gpu": ("gpu.json", gpu),
}


def filled(page: str, results: Path) -> str:
    """The page with every marked table made anew.

    Raises:
        ValueError: a marker names a table that there is not.
    """

    def table(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise ValueError(f"there is no table {name!r}; choose one of {', '.join(TABLES)}")
        file, make = TABLES[name]
        path = results / file
        text = make(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else MISSING
        return f"{match[1]}\n{text}\n\n{match[3]}"

    return MARKED.sub(table, page)


def main() -> None:
    """Fills the page in, or checks that it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page, RESULTS)
    if arguments.check and new != page:
        raise SystemExit("docs/performance.md is not what benchmarks/results say: run the script")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
