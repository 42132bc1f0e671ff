"""What may be embedded: texts, pictures, or both, from files or from memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from polyqwen.data.images.files import upright_rgb
from polyqwen.data.images.images import Pictures

Input = str | Path | Image.Image | Mapping[str, Any]
GEOMETRY = ("patch_size", "merge_size", "min_visual_tokens", "max_visual_tokens", "resize")


def geometry(settings: Mapping[str, Any]) -> Pictures:
    """Opens a caller's own files, wherever they are, as the run showed its pictures.

    Args:
        settings: of a run's ``data`` or an exported folder's ``pictures``; what older versions did
            not have yet is left at its default.
    """
    shown = {key: settings[key] for key in GEOMETRY if key in settings}
    return Pictures(Path("/").resolve(), cache_mb=0, **shown)


class GivenPictures(Pictures):
    """Pictures of one call, by name: files anywhere on this machine, or pictures in memory.

    A caller names its own files, so there is no data root to keep within.

    Args:
        like: patch sizes, budgets and resizing; its root is that of the file system.
    """

    def __init__(self, like: Pictures) -> None:
        super().__init__(like.root, cache_mb=0, **{key: getattr(like, key) for key in GEOMETRY})
        self._given: list[Image.Image] = []

    def add(self, picture: str | Path | Image.Image) -> tuple[str, tuple[int, int]]:
        """The name of a picture, and its height and width.

        Raises:
            PictureError: it is missing, damaged or too large.
        """
        if isinstance(picture, Image.Image):
            self._given.append(upright_rgb(picture))
            return f"\0{len(self._given) - 1}", self._given[-1].size[::-1]
        path = Path(picture).resolve()
        name = str(path.relative_to(path.anchor))
        return name, self.size(name)

    def open(self, name: str) -> Image.Image:
        """See `Pictures.open`."""
        return self._given[int(name[1:])] if name.startswith("\0") else super().open(name)


def content_of(given: Input) -> tuple[str, str | Path | Image.Image | None]:
    """Text and picture of an input.

    A string is a text; a picture's file is a `Path`, or a string under the key ``image``.

    Raises:
        ValueError: another type or key, or neither text nor picture.
    """
    if isinstance(given, str):
        text, image = given, None
    elif isinstance(given, Path | Image.Image):
        text, image = "", given
    elif isinstance(given, Mapping):
        if unknown := sorted(map(str, set(given) - {"text", "image"})):
            raise ValueError(f"an input has the keys text and image, got {', '.join(unknown)}")
        text, image = given.get("text") or "", given.get("image")
    else:
        raise ValueError(
            "an input is a text, a pathlib.Path of a picture, a PIL picture or a mapping with "
            f"text and image, got {type(given).__name__}"
        )
    if not isinstance(text, str) or not isinstance(image, str | Path | Image.Image | None):
        raise ValueError(
            f"text must be a string and image a path or a PIL picture, got "
            f"{type(text).__name__} and {type(image).__name__}"
        )
    if not text.strip() and image is None:
        raise ValueError("an input is empty; give it a text, a picture or both")
    return text.strip(), image


def is_single(inputs: object) -> bool:
    """Whether this is one input rather than several."""
    return isinstance(inputs, str | Path | Image.Image | Mapping)
