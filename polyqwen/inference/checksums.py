"""What tells whether a folder is still what was exported."""

from pathlib import Path

from polyqwen.atomic_files import write_text
from polyqwen.checkpoints.sidecar import hash_of

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Names and SHA-256 of all files, as ``sha256sum -c SHA256SUMS`` reads them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    (folder / SUMS).touch()
    for path in files:  # safetensors lets nobody else read what it writes
        path.chmod((folder / SUMS).stat().st_mode)
    lines = [f"{hash_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> None:
    """Raises ValueError for a folder whose files are not those that were exported."""
    listing = folder / SUMS
    if not listing.is_file():
        raise ValueError(f"{folder} has no {SUMS}: its export did not end; export it again")
    for line in listing.read_text(encoding="utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or hash_of(path) != wanted:
            what = "has changed since the export" if path.is_file() else "is missing"
            raise ValueError(f"{path} {what}; export the model again, or copy the folder again")
