"""Pictures: what is opened, what is refused, and the cut into patches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyqwen.data.images import files as module
from polyqwen.data.images.images import Pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    (tmp_path / "root").mkdir()
    return Pictures(tmp_path / "root", cache_mb=1)


def save(pictures: Pictures, name: str, image: Image.Image, **options: object) -> str:
    image.save(pictures.root / name, **options)
    return name


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "1", "RGBA", "LA", "I;16"])
def test_every_mode_becomes_rgb(pictures: Pictures, mode: str) -> None:
    ending = "jpg" if mode == "CMYK" else "png"
    name = save(pictures, f"a.{ending}", Image.new(mode, (30, 40)))
    opened = pictures.open(name)
    assert opened.mode == "RGB" and opened.size == (30, 40)
    assert pictures.size(name) == (40, 30)


def test_transparency_is_laid_on_white(pictures: Pictures) -> None:
    name = save(pictures, "a.png", Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    assert pictures.open(name).getpixel((0, 0)) == (255, 255, 255)


def test_turned_pictures_are_turned_back(pictures: Pictures) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    name = save(pictures, "a.jpg", Image.new("RGB", (30, 60)), exif=exif)
    assert pictures.size(name) == (30, 60)
    assert pictures.open(name).size == (60, 30)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "link.png", "a/../../secret.png"])
def test_nothing_outside_the_root_is_opened(pictures: Pictures, name: str) -> None:
    Image.new("RGB", (4, 4)).save(pictures.root.parent / "secret.png")
    (pictures.root / "link.png").symlink_to(pictures.root.parent / "secret.png")
    with pytest.raises(ValueError, match="outside the data root"):
        pictures.open(name)


def test_damaged_missing_and_strange_files_are_named(pictures: Pictures) -> None:
    whole = save(pictures, "whole.jpg", Image.effect_noise((64, 64), 50).convert("RGB"))
    data = (pictures.root / whole).read_bytes()
    (pictures.root / "half.jpg").write_bytes(data[: len(data) // 2])
    (pictures.root / "page.png").write_text("<html>")
    Image.new("RGB", (4, 4)).save(pictures.root / "a.bmp")
    for name in ("half.jpg", "page.png", "a.bmp", "none.png"):
        with pytest.raises(ValueError, match=name):
            pictures.open(name)


def test_bombs_are_refused_by_their_header(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.MAX_PIXELS, "PNG", 99)
    name = save(pictures, "a.png", Image.new("RGB", (10, 10)))
    for action in (pictures.open, pictures.size):
        with pytest.raises(ValueError, match="100 pixels"):
            action(name)


def test_visual_tokens_keep_to_the_budget(pictures: Pictures) -> None:
    assert pictures.visual_tokens((56, 56), 16) == 4
    assert pictures.visual_tokens((28, 280), 16) == 10
    assert pictures.visual_tokens((1000, 1000), 16) <= 16
    assert pictures.visual_tokens((3, 40), 16) >= 1


@pytest.mark.parametrize("target", [(84, 112), (280, 252), (196, 28)])
def test_torch_resizes_as_pillow_does(pictures: Pictures, target: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (131, 173, 3), dtype=np.uint8)
    name = save(pictures, "a.png", Image.fromarray(noise))
    ours = pictures.pixels(name, target).astype(int)
    theirs = Pictures(pictures.root, resize="pillow").pixels(name, target).astype(int)
    assert ours.shape == (*target, 3) and theirs.std() > 10
    assert abs(ours - theirs).max() <= 2
    assert (ours != theirs).mean() < 0.02
    with pytest.raises(ValueError, match=r"data\.resize"):
        Pictures(pictures.root, resize="cv2")


def test_patches_of_one_visual_token_follow_each_other(pictures: Pictures) -> None:
    pixels = np.zeros((28, 56, 3), dtype=np.uint8)
    for i, (y, x) in enumerate([(0, 0), (0, 14), (14, 0), (14, 14)]):
        pixels[y : y + 14, x : x + 14] = i
        pixels[y : y + 14, x + 28 : x + 42] = 4 + i
    patches = pictures.patches(pixels)
    assert patches.shape == (8, 588) and patches.dtype == np.uint8
    assert [int(p.min()) for p in patches] == [int(p.max()) for p in patches] == list(range(8))


def test_cache_keeps_the_last_pictures_within_its_megabytes(pictures: Pictures) -> None:
    """1 MiB holds 4 pictures of 280 × 280 × 3 bytes."""

    def colors(names: list[str]) -> list[int]:
        pixels = [pictures.pixels(name, (280, 280)) for name in names]
        assert all((one == one.flat[0]).all() for one in pixels)
        return [int(one.flat[0]) for one in pixels]

    names = [save(pictures, f"{i}.png", Image.new("RGB", (280, 280), (i,) * 3)) for i in range(8)]
    assert colors(names) == list(range(8)) == colors(names)  # also those that are read again
    for name in names:  # what is read from the disk from now on is seen
        save(pictures, name, Image.new("RGB", (280, 280), (99,) * 3))
    assert colors(names[4:]) == [4, 5, 6, 7]
    assert colors(names[:4]) == [99] * 4
    assert colors(names[4:]) == [99] * 4
