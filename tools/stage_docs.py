"""Copies what the documentation is made of, as it lies, for MkDocs: python -m tools.stage_docs TO.

The configuration reference is written anew.

Pages link to the README, to examples and to results outside of docs/, which MkDocs would not see.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.configuration_reference import PAGE, page

ROOT = Path(__file__).parents[1]
ENDINGS = {".md", ".png", ".svg", ".csv", ".json", ".html", ".jsonl", ".yaml", ".txt"}


def sources() -> Iterator[Path]:
    """Files of the site, relative to the repository."""
    yield from (path.relative_to(ROOT) for path in sorted(ROOT.glob("*.md")))
    for folder in ("docs", "examples", "benchmarks/results"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in ENDINGS and path.name != "requirements.txt":
                yield path.relative_to(ROOT)


def main() -> None:
    """Makes the folder anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("to", type=Path)
    to = parser.parse_args().to
    shutil.rmtree(to, ignore_errors=True)
    for source in sources():
        (to / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, to / source)
    (to / PAGE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
