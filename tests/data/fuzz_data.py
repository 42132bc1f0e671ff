"""Feeds readers, tasks, tokenizer and decoding broken input: python -m tests.data.fuzz_data.

Each execution follows from its target and its number alone; --replay TARGET NUMBER does one again.
It runs in a child process that may take 10 seconds for an input and 700 MB more than it began with.
A finding is whatever is neither a result nor a ValueError in one clear line: another exception, a
crash, a hang, too much memory, a forged token, a path that leads out.
"""

import argparse
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from polyqwen.data.generated import generate
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.bad_rows import BadRows
from polyqwen.data.rows.sources import FolderSource
from polyqwen.data.rows.types import PictureError, RowError
from polyqwen.data.tables.prepare import prepare, read_examples
from tests.conftest import REAL
from tests.data.hostile import PIECES, VALUES, encoded, mutated, one_clear_line, spoilt_pictures
from tests.data.test_hostile_rows import CLASSES, MODES, PARTS, TASKS, table_files

SLICE, LIMIT, MEMORY = 20.0, 10, 700  # seconds of a child, seconds of an input, MB
Target = Callable[[random.Random, Path], None]


class Seeds:
    """Good rows and pictures to begin with: real ones, or generated ones."""

    def __init__(self, folder: Path) -> None:
        data = folder / "generated"
        self.root = REAL if REAL.is_dir() else generate(data, seed=1, train_rows=64, eval_rows=32)
        self.lines = {task: self._lines(task) for task in TASKS}
        names = [json.loads(line)["image"] for line in self.lines["ocr"]]
        pictures = [Pictures(self.root).open(name) for name in names[:6]]
        pictures = [picture.resize((120, 90)) for picture in pictures]
        self.pictures = [(self.root / name).read_bytes() for name in names[:6]]
        for i, picture in enumerate(pictures):
            picture = picture.convert(("RGB", "RGBA", "P", "L", "1", "LA")[i])
            self.pictures += [encoded(picture, "PNG"), encoded(picture.convert("RGBA"), "WEBP")]
            options = {"progressive": bool(i % 2), "exif": picture.getexif()}
            options["exif"][0x0112] = i + 1
            self.pictures.append(
                encoded(picture.convert(("RGB", "CMYK")[i % 2]), "JPEG", **options)
            )
        frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
        for form in ("PNG", "WEBP"):
            moving = encoded(frames[0], form, save_all=True, append_images=frames[1:])
            self.pictures.append(moving)
        self.pictures += [data for _, data in spoilt_pictures(pictures[0], random.Random(0))]
        self.tables = table_files()

    def _lines(self, task: str) -> list[bytes]:
        lines = (self.root / task / "train.jsonl").read_bytes().splitlines()
        return lines[:: max(1, len(lines) // 200)]


def targets(seeds: Seeds) -> dict[str, Target]:
    """Name -> what an execution does; it raises whatever is a finding."""

    def write(folder: Path, name: str, data: bytes) -> Path:
        (folder / "t").mkdir(exist_ok=True)
        path = folder / "t" / name
        path.write_bytes(data)
        return path

    def read(folder: Path, task: str) -> None:
        known = CLASSES if TASKS[task].label else {}
        try:
            reader = FolderSource(folder).reader("t", "train")
            pictures = Pictures(folder, store=folder / "store")
            found = [e for _, e in read_examples(reader, TASKS[task], pictures, known)]
        except ValueError as error:
            assert one_clear_line(error), repr(str(error))
            return
        errors = [e for e in found if isinstance(e, RowError)]
        assert all(map(one_clear_line, errors)), [str(e) for e in errors]
        for example in found:
            if not isinstance(example, RowError):
                assert example.positive is not None
                text(example.query.text)

    def text(value: str) -> None:
        for own in MODES.values():
            ids = own.encode([value])[0]
            added = own.tokenizer.get_added_vocab().values()
            assert len(ids) <= own.max_tokens and not set(added).intersection(ids), repr(value)

    def lines(rng: random.Random, folder: Path) -> None:
        task = rng.choice(list(TASKS))
        rows = [rng.choice(seeds.lines[task]) for _ in range(rng.randrange(1, 5))]
        write(folder, "train.jsonl", mutated(b"\n".join(rows), rng))
        read(folder, task)

    def records(rng: random.Random, folder: Path) -> None:
        task = rng.choice(list(TASKS))
        record = json.loads(rng.choice(seeds.lines[task]))
        for field in rng.sample(sorted(record), rng.randrange(1, len(record) + 1)):
            record[field] = anything(rng, 4)
        write(folder, "train.jsonl", json.dumps(record).encode())
        read(folder, task)

    def tables(rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(seeds.tables))
        path = write(folder, f"train{name.partition(',')[0]}", mutated(seeds.tables[name], rng))
        try:
            read(folder, "text_pair")
        finally:
            path.unlink()

    def pictures(rng: random.Random, folder: Path) -> None:
        write(folder, "a.png", mutated(rng.choice(seeds.pictures), rng))
        own, sizes = Pictures(folder), []
        for action in (lambda: own.size("t/a.png"), lambda: own.open("t/a.png").size[::-1]):
            try:
                sizes.append(action())
            except PictureError as error:
                assert one_clear_line(error), repr(str(error))
        assert len(set(sizes)) <= 1, sizes
        if len(sizes) == 2:
            target = own.target_size(sizes[0], 16)
            assert own.pixels("t/a.png", target).shape == (*target, 3)

    def texts(rng: random.Random, folder: Path) -> None:
        parts = [
            rng.choice([rng.choice(PARTS), chr(rng.randrange(1, 0xD800)), rng.choice("<|>[]ab")])
            for _ in range(rng.randrange(1, 60))
        ]
        text("".join(parts) * (1 if rng.random() < 0.97 else 1000))

    def names(rng: random.Random, folder: Path) -> None:
        words = ["..", "/", "a", ".", "\\", "~", "\0", "http://", "file:", "%2e", "link", "\ud800"]
        name = "".join(rng.choice(words) for _ in range(rng.randrange(1, 9)))
        if not (folder / "link").is_symlink():
            (folder / "link").symlink_to("/etc")
        try:
            assert Pictures(folder).path(name).is_relative_to(folder.resolve()), repr(name)
        except PictureError as error:
            assert one_clear_line(error), repr(str(error))

    def whole(rng: random.Random, folder: Path) -> None:
        task = rng.choice(list(TASKS))
        rows = [rng.choice(seeds.lines[task]) for _ in range(8)]
        write(folder, "train.jsonl", b"\n".join([*rows, *(mutated(r, rng) for r in rows)]))
        reader = FolderSource(folder).reader("t", "train")
        known = CLASSES if TASKS[task].label else {}
        skip, own = BadRows("skip", 1.0), Pictures(seeds.root)
        try:
            table = prepare(reader, TASKS[task], MODES["token"], own, folder / "c", skip, known)
            assert len(table) >= 8
        except ValueError as error:
            assert one_clear_line(error), repr(str(error))
        for file in (folder / "c").iterdir():
            file.unlink()

    every = (lines, records, tables, pictures, texts, names, whole)
    return {target.__name__: target for target in every}


def anything(rng: random.Random, depth: int) -> Any:
    """A JSON value of any kind."""
    kind = rng.randrange(6 if depth else 4)
    if kind <= 1:
        return rng.choice(VALUES)
    if kind == 2:
        return rng.choice([0, -1, 0.5, 1e308, 2**70, rng.random()])
    if kind == 3:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(9)))
    if kind == 4:
        return [anything(rng, depth - 1) for _ in range(rng.randrange(5))]
    keys = [
        "question",
        "answer",
        "a",
        "sentiment",
        "\ud800",
        "",
        rng.choice(PIECES).decode("latin1"),
    ]
    return {rng.choice(keys): anything(rng, depth - 1) for _ in range(rng.randrange(4))}


def child(every: dict[str, Target], start: int, end: float, work: Path) -> int:
    """Runs executions from number `start` on until `end`, in a fork; returns its exit status."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (MEMORY << 20),) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    names, number = list(every), start
    try:
        while time.monotonic() < end:
            name = names[number % len(names)]
            (work / "now").write_text(f"{name} {number}")
            signal.alarm(LIMIT)
            every[name](random.Random(f"{name} {number}"), work)
            number += 1
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    (work / "done").write_text(f"{number} {peak}")
    os._exit(0)


def main() -> None:
    """Runs for a time and says what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="number of the first execution")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "NUMBER"))
    options = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        every = targets(Seeds(work))
        if options.replay:
            name, number = options.replay
            return every[name](random.Random(f"{name} {number}"), work)
        end = time.monotonic() + 60 * options.minutes
        number, found, peak = options.seed, Counter[str](), 0
        while time.monotonic() < end:
            status = child(every, number, min(end, time.monotonic() + SLICE), work)
            if status == 0:
                number, most = map(int, (work / "done").read_text().split())
                peak = max(peak, most)
                continue
            at = (work / "now").read_text()
            print(f"finding: {at} ended with {status}", flush=True)
            found[at.split()[0]] += 1
            number = int(at.split()[1]) + 1
        done = number - options.seed
        print(f"{done} executions of {', '.join(every)}; {found.total()} findings {dict(found)}")
        print(f"most memory of a process: {peak} MB")
        sys.exit(int(bool(found)))


if __name__ == "__main__":
    main()
