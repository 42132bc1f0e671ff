"""Rows and pictures as broken files and strangers make them, drawn from good ones by a seed."""

import io
import json
import os
import random
import resource
import signal
import struct
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

# values that a field may not have, or that are worth a look where it may
VALUES: list[Any] = [
    None, True, [], {}, [[]], {"a": {"b": [1]}}, "", " \n\t", "\x00", "\x1b[31m", "\u200b\u2060",
    "\ud800", "a\udfffb", 1e999, -1e999, float("nan"), 10**400, -1, 1.0000001, "high", "NaN",
    ["a", 1, None], [{"question": "q"}], [{"question": [1], "answer": "a"}], [None], "x" * 100_000,
    "../x.png", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x.png", "a\x00.png",
    "\\\\host\\share\\x.png", "." * 5000, "a/" * 3000, {"sentiment": "none"}, {"sentiment": [1]},
    ["a"] * 1001, "data:image/png;base64,AAAA", ".", "images", "nope.jpg",
]  # fmt: skip
LINES: list[bytes] = [
    b"{", b"[", b"[" * 100_000, b'{"a":' * 50_000, b"{'a': 1}", b'"text"', b"1", b"null", b"NaN",
    b'{"a": 1,}', b'{"a": 1} {"b": 2}', b'{"a": 1', b'{"a": "\xff"}', b'\xff\xfe{\x00', b"\x00",
    b'{"a": ' + b"9" * 5000 + b"}", b'{"text_a": 1, "text_a": 2}', b'{"a": "\\ud800"}', b"{}",
    b"\xef\xbb\xbf{}", b"<html>", b'{"a": 1}\r{"b": 1}', b'{"\xc3": 1}', b'{"a": "\\x"}',
    b"\x1f\x8b", b'{"a": tru', b'{"a" 1}', b"{1: 2}", b"-", b'{"a": 01}', b"//", b"\\",
    b'{"a": "\t"}',
]  # fmt: skip
PIECES = [b"\x00", b"\xff", b"\n", b'"', b"{", b"[", b"\\u", b"\\ud800", b"<|image_pad|>", b"1e999"]
PIECES += [b"\xff\xd8", b"\xff\xda", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"IHDR", b"RIFF"]


def spoilt_rows(rows: list[dict[str, Any]], rng: random.Random) -> Iterator[bytes]:
    """Every bad line, then every bad value in every field of a row, as lines."""
    yield from LINES
    for row in rows:
        for field in row:
            for value in VALUES:
                yield json.dumps({**row, field: value}).encode()
            yield json.dumps({k: v for k, v in row.items() if k != field}).encode()
            twice = json.dumps(row)[:-1] + f', "{field}": 1}}'
            yield twice.encode()
        yield cut(json.dumps(row).encode(), rng)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The beginning of it."""
    return data[: rng.randrange(len(data))]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, taken away, doubled or put in."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(made) + 1)
        end = min(len(made), at + rng.choice([1, 1, 4, 64, 4096]))
        action = rng.randrange(6)
        if action == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif action == 1 and at < len(made):
            made[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif action == 2:
            del made[at:end]
        elif action == 3:
            made[at:at] = made[at:end]
        elif action == 4:
            made[at:at] = rng.choice(PIECES)
        elif action == 5 and rng.random() < 0.3:
            del made[at:]
        if not made:
            break
    return bytes(made)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a picture's file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_of(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it is so large and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + body


def chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def resized_jpeg(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (at := data.find(marker)) >= 0:
            return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
    raise AssertionError("no frame header")


def many_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan stands there again and again."""
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


def spoilt_pictures(image: Image.Image, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """(what was done, the file) of pictures that must be refused."""
    files = {form: encoded(image, form) for form in ("JPEG", "PNG", "WEBP")}
    for form, data in files.items():
        for share in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9):
            yield f"{form} cut at {share}", data[: int(len(data) * share)]
        yield f"{form} without its beginning", data[3:]
        if form != "WEBP":  # its decoder goes on, and draws something
            yield f"{form} filled with zeros", data[:200] + b"\0" * (len(data) - 200)
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (10_000, 5_001), (0, 9)):
        yield f"PNG of {width}x{height}", png_of(width, height)
    for width, height in ((65_500, 65_500), (50_001, 1_000)):
        yield f"JPEG of {width}x{height}", resized_jpeg(files["JPEG"], width, height)
    yield "PNG of one bit", png_of(100_000, 100_000, depth=1, colour=0)
    yield (
        "WebP too large",
        encoded(Image.new("L", (16_000, 1_600)).convert("RGB"), "WEBP", method=0),
    )
    bomb = zlib.compress(b"\0" * 80_000_000)
    yield "bomb in a text", png_of(99, 99, chunk(b"zTXt", b"key\0\0" + bomb))
    yield "bomb in a profile", png_of(99, 99, chunk(b"iCCP", b"key\0\0" + bomb))
    yield "many scans", many_scans(encoded(image, "JPEG", progressive=True), 120)
    for size in ((1, 201), (4020, 20)):
        yield f"narrow {size}", encoded(Image.new("RGB", size), "PNG")
    for form in ("BMP", "GIF", "TIFF", "PPM", "TGA", "ICO", "EPS"):
        yield form, encoded(image.convert("RGB"), form)
    yield "HTML", b"<html><body>404</body></html>"
    yield (
        "SVG",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/"/></svg>',
    )
    yield "text", b"no picture"
    yield "PDF", b"%PDF-1.7\n"
    yield "noise", rng.randbytes(5000)
    yield "JPEG's mark", b"\xff\xd8\xff"
    yield "PNG's mark", b"\x89PNG\r\n\x1a\n"
    yield "WebP's mark", b"RIFF\xff\xff\xff\xffWEBPVP8 "


def contained(work: Callable[[], Any], seconds: int, megabytes: int) -> Any:
    """What `work` returns in a process of its own, which may take so much time and more memory."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(out)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = work()
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            with os.fdopen(into, "w") as pipe:
                json.dump({"result": result, "grown": grown}, pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"ended with {code}" + (": it hangs" if code == -signal.SIGALRM else "")
    answer = json.loads(text)
    assert answer["grown"] <= megabytes, f"took {answer['grown']} MB"
    return answer["result"]


def one_clear_line(error: BaseException) -> bool:
    """Whether a message can be printed as it is."""
    text = str(error)
    return 10 < len(text) < 1200 and text.isprintable()
