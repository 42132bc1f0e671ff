"""Picture files: what may be opened, and how its bytes become an upright RGB picture.

Nothing here trusts a file or its name. Pillow's own guard (a warning at 89 million pixels, an error
at twice that) is not relied on: limits are checked in the header, before anything is unpacked.
"""

import io
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from polyqwen.data.rows.types import PictureError, one_line

# format -> pixels. Decoding takes 4 to 10 bytes of memory a pixel, of WebP 16: so 500 MB at most.
MAX_PIXELS = {"JPEG": 50_000_000, "PNG": 50_000_000, "WEBP": 25_000_000}
MAX_BYTES = 64 << 20  # of a file
MAX_ASPECT = 200  # what Qwen2-VL's resizing accepts
MAX_SCANS = 100  # of a JPEG: each is a pass over the whole picture, and costs a few bytes
ORIENTATION = 0x0112  # EXIF
TURNED = (5, 6, 7, 8)  # orientations that exchange height and width
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def picture_path(root: Path, name: str) -> Path:
    """The file of a picture below the data root.

    Args:
        root: the data root, resolved.
        name: path relative to it; a link may stand for a file below the root, for no other.

    Raises:
        PictureError: the name is an address, is absolute, has ``..`` or leads out of the root.
    """
    if re.match(r"[A-Za-z][\w+.-]*://|data:", name):
        raise PictureError(
            f"picture {shown(name)} is an address, and none is ever fetched; "
            f"save it below the data root {root}",
            "outside",
        )
    out = PictureError(
        f"picture {shown(name)} lies outside the data root {root}; give a path relative to it, "
        "without ..",
        "outside",
    )
    path = Path(name)
    if "\0" in name or path.is_absolute() or ".." in path.parts:
        raise out
    try:
        path = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, no such encoding
        raise PictureError(
            f"picture {shown(name)} cannot be found: {one_line(error)}", "missing"
        ) from error
    if not path.is_relative_to(root):
        raise out
    return path


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the header only.

    Raises:
        PictureError: see `read_picture`; what lies behind the header is not looked at.
    """
    _check_file(path)
    with _errors_of(path), _opened(path) as file:
        _check_header(file, path)
        width, height = file.size
        return (width, height) if _orientation(file) in TURNED else (height, width)


def read_picture(path: Path) -> Image.Image:
    """The decoded picture: its first frame, upright, RGB, transparency on white.

    Raises:
        PictureError: there is no such file, it is no JPEG, PNG or WebP, it is damaged or cut short,
            or larger than the limits above.
    """
    _check_file(path)
    with _errors_of(path):
        image, turn = _decoded(path)
        return image if turn is None else image.transpose(turn)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture in memory as `read_picture` gives one from a file.

    Raises:
        PictureError: it is larger than the limits above, or cannot be decoded.
    """
    with _errors_of(Path("in memory")):  # an opened file is decoded only here
        _check_header(image, Path("in memory"))
        turn = UPRIGHT.get(_orientation(image))
        image = _rgb(image)
        return image if turn is None else image.transpose(turn)


def _decoded(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """The picture as it is stored, and how to turn it: what decoding it took is free by then."""
    data = path.read_bytes()
    with _opened(io.BytesIO(data)) as file:
        _check_header(file, path)
        if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
            raise PictureError(
                f"picture {_name(path)} has more than {MAX_SCANS} scans", "too large"
            )
        turn = UPRIGHT.get(_orientation(file))
        file.load()
        return _rgb(file), turn


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Makes a `PictureError` of any: on hostile bytes Pillow raises whatever it stumbles over."""
    try:
        yield
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(
            f"picture {_name(path)} cannot be read: {_reason(error)}", "damaged"
        ) from error


@contextmanager
def _opened(file: Path | io.BytesIO) -> Iterator[Image.Image]:
    """The picture's header; Pillow's warnings are about sizes and EXIF, which are looked after."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=tuple(MAX_PIXELS)) as image:
            yield image


def shown(name: str) -> str:
    """A name for a message: in quotes, without control characters, not too long."""
    text = repr(name)
    return text if len(text) <= 120 else f"{text[:60]}…{text[-40:]}"


def _check_file(path: Path) -> None:
    """A pipe or a device would be read for ever."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "there is no such file" if gone else _reason(error)
        raise PictureError(f"picture {_name(path)} cannot be read: {reason}", "missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(f"picture {_name(path)} cannot be read: it is not a file", "damaged")
    if status.st_size > MAX_BYTES:
        raise PictureError(
            f"picture {_name(path)} has {status.st_size:,} bytes, more than {MAX_BYTES:,}",
            "too large",
        )


def _check_header(file: Image.Image, path: Path) -> None:
    width, height = file.size
    most = MAX_PIXELS.get(file.format or "", MAX_PIXELS["JPEG"])  # MPO is JPEG by another name
    if width * height > most:
        raise PictureError(
            f"picture {_name(path)} has {width * height:,} pixels, more than {most:,}", "too large"
        )
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(
            f"picture {_name(path)} is {width} × {height}; one side may be at most {MAX_ASPECT} "
            "times the other",
            "too large",
        )


def _orientation(file: Image.Image) -> int:
    """As the header has it, 1 where it cannot be read.

    Image's own method, before loading: that of a PNG would decode the picture to look behind it.
    """
    try:
        return int(Image.Image.getexif(file).get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data take nothing from the picture
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _name(path: Path) -> str:
    """The path as it is, quoted if a terminal could not print it."""
    text = str(path)
    return text if text.isprintable() and len(text) < 400 else shown(text)


def _reason(error: Exception) -> str:
    """Without the path, which the message has already."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a {', '.join(MAX_PIXELS)} file, or damaged"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(text)
