"""Pictures of broken files and of strangers: shown, or refused in one clear line."""

import json
import os
import random
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyqwen.data.images import files as picture_files
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.bad_rows import BadRows
from polyqwen.data.rows.sources import FolderSource, HubSource
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import PictureError, Reader
from polyqwen.data.tables.prepare import prepare
from tests.conftest import REAL
from tests.data.hostile import contained, encoded, mutated, one_clear_line, png_of, spoilt_pictures
from tests.data.test_tokens import SHARED

OCR = Task({"query_image": "image", "document_text": "text"}, prefix="<ocr>")


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    (tmp_path / "root").mkdir()
    return Pictures(tmp_path / "root", cache_mb=1)


@pytest.fixture
def image(folder: Path) -> Image.Image:
    """A real picture where there is one, else a generated one."""
    root = REAL if REAL.is_dir() else folder
    row = json.loads((root / "ocr" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    return Pictures(root).open(row["image"]).resize((200, 150))


def put(pictures: Pictures, name: str, data: bytes) -> str:
    (pictures.root / name).write_bytes(data)
    return name


def test_spoilt_pictures_are_refused_in_one_line(pictures: Pictures, image: Image.Image) -> None:
    cases = list(spoilt_pictures(image, random.Random(3)))
    assert len(cases) >= 50

    def work() -> list[str]:
        shown = []
        for what, data in cases:
            name = put(pictures, "a.jpg", data)
            try:
                pictures.open(name)
                shown.append(what)
            except PictureError as error:
                assert one_clear_line(error) and "a.jpg" in str(error), (what, str(error))
            try:
                height, width = pictures.size(name)
                assert height * width <= 50_000_000
            except PictureError as error:
                assert one_clear_line(error), (what, str(error))
        return shown

    assert contained(work, seconds=60, megabytes=300) == []


def test_mutated_pictures_are_shown_or_refused(pictures: Pictures, image: Image.Image) -> None:
    rng = random.Random(4)
    files = [encoded(image, "JPEG"), encoded(image.convert("P"), "PNG"), encoded(image, "WEBP")]
    files.append(
        encoded(image, "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01" * 9)
    )

    def work() -> list[int]:
        counts = [0, 0]
        for _ in range(400):
            name = put(pictures, "a.png", mutated(rng.choice(files), rng))
            try:
                opened = pictures.open(name)
                assert opened.mode == "RGB" and opened.size == pictures.size(name)[::-1]
                counts[0] += 1
            except PictureError as error:
                assert one_clear_line(error), str(error)
                counts[1] += 1
        return counts

    shown, refused = contained(work, seconds=60, megabytes=300)
    assert shown >= 40 and refused >= 40


def test_pillows_own_guard_is_not_needed(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    name = put(pictures, "a.png", png_of(60_000, 60_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for action in (pictures.open, pictures.size):
            with pytest.raises(PictureError, match=r"3,600,000,000 pixels, more than 50,000,000"):
                action(name)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_largest_pictures_stay_below_a_gigabyte(pictures: Pictures, form: str) -> None:
    pixels = picture_files.MAX_PIXELS[form]
    exif = Image.Exif()
    exif[picture_files.ORIENTATION] = 6
    mode, options = ("RGB", {"progressive": True}) if form == "JPEG" else ("RGBA", {})

    def write() -> None:  # elsewhere: writing takes as much
        picture = Image.new(mode, (5000, pixels // 5000), "red")
        fast = {"compress_level": 1} if form == "PNG" else {"quality": 1, "method": 0, **options}
        picture.save(pictures.root / "a", form, exif=exif, **fast)

    contained(write, seconds=60, megabytes=2000)
    assert contained(lambda: pictures.open("a").size, 60, 560) == [pixels // 5000, 5000]


def test_a_file_too_long_is_not_read(pictures: Pictures) -> None:
    name = put(pictures, "a.png", png_of(9, 9))
    os.truncate(pictures.root / name, picture_files.MAX_BYTES + 1)
    for action in (pictures.open, pictures.size):
        with pytest.raises(PictureError, match="bytes, more than"):
            action(name)


def test_what_is_no_file_is_not_opened(pictures: Pictures) -> None:
    os.mkfifo(pictures.root / "pipe.png")
    (pictures.root / "folder.png").mkdir()
    (pictures.root / "circle.png").symlink_to("circle.png")
    (pictures.root / "device.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "folder.png", "circle.png", "device.png", "./", "a.png/b.png"):

        def work(name: str = name) -> list[str]:
            lines = []
            for action in (pictures.open, pictures.size):
                with pytest.raises(PictureError) as refused:
                    action(name)
                lines.append(str(refused.value))
            return lines

        for line in contained(work, seconds=10, megabytes=50):
            assert name.strip("./") in line, line


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.png", "/etc/passwd", "a/../../secret.png", "a/../b.png", "link.png"),
        *("folder/secret.png", "http://127.0.0.1/x.png", "https://a/x.png", "file:///etc/passwd"),
        *("FTP://a/x.png", "data:image/png;base64,AA", "a\0.png", "\0", "//server/share/x.png"),
        *("s3://b/x.png", "file://localhost/etc/passwd", "..", "./../secret.png"),
    ],
)
def test_names_that_lead_elsewhere(pictures: Pictures, name: str) -> None:
    Image.new("RGB", (4, 4)).save(pictures.root.parent / "secret.png")
    Image.new("RGB", (4, 4)).save(pictures.root / "b.png")
    (pictures.root / "link.png").symlink_to(pictures.root.parent / "secret.png")
    (pictures.root / "folder").symlink_to(pictures.root.parent)
    (pictures.root / "inside.png").symlink_to(pictures.root / "b.png")
    for action in (pictures.open, pictures.size):
        with pytest.raises(PictureError) as refused:
            action(name)
        assert refused.value.kind == "outside" and one_clear_line(refused.value)
    assert pictures.size("inside.png") == (4, 4)


@pytest.mark.parametrize("name", ["\ud800.png", "a" * 300, "a/" * 3000, "\n.png", "\\\\s\\x.png"])
def test_names_that_no_file_can_have(pictures: Pictures, name: str) -> None:
    for action in (pictures.open, pictures.size):
        with pytest.raises(PictureError) as refused:
            action(name)
        assert refused.value.kind == "missing" and one_clear_line(refused.value)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server's address, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(encoded(Image.new("RGB", (8, 8)), "PNG"))

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    running.server_close()
    thread.join()


def test_no_address_is_ever_fetched(
    pictures: Pictures, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = server
    names = [f"{address}/x.png", address.replace("http", "HTTP") + "/y.png", f"{address[5:]}/z.png"]
    rows = [{"image": name, "text": "a"} for name in names]
    root = pictures.root
    for task in ("lines", "saved", "plain", "pictures", "mapped"):
        (root / task).mkdir()
    (root / "lines" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = datasets.Dataset.from_list(rows)
    plain.save_to_disk(root / "saved" / "train")
    pq.write_table(plain.data.table, root / "plain" / "train.parquet")
    # a column that says of itself that it holds pictures: `datasets` opens what it names
    shown = datasets.Dataset.from_list([{**r, "image": {"path": r["image"]}} for r in rows])
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    table = shown.cast_column("image", datasets.Image()).data.table
    table = table.cast(features.arrow_schema)
    pq.write_table(table, root / "pictures" / "train.parquet")
    with pa.ipc.new_stream(str(root / "mapped" / "train.arrow"), table.schema) as writer:
        writer.write_table(table)
    folder = FolderSource(root)
    hubs = HubSource({task: {"name": str(root / task)} for task in ("plain", "pictures")})
    tasks = ("lines", "saved", "plain", "pictures", "mapped")
    readers: list[Reader] = [folder.reader(task, "train") for task in tasks]
    readers += [hubs.reader(task, "train") for task in ("plain", "pictures")]
    for reader in readers:
        with pytest.raises(ValueError, match=r"(row|line) \d"):
            prepare(reader, OCR, SHARED, pictures, tmp_path / "cache")
        with pytest.raises(ValueError, match="no rows in"):
            prepare(reader, OCR, SHARED, pictures, tmp_path / "cache", BadRows("skip", 1.0))
    for name in names:
        for action in (pictures.open, pictures.size):
            with pytest.raises(PictureError):
                action(name)
    assert asked == []
    urllib.request.urlopen(f"{address}/seen", timeout=5).close()
    assert asked == ["/seen"]  # it would have noticed


def test_sixteen_bits_keep_their_shades(pictures: Pictures) -> None:
    shades = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    name = put(pictures, "a.png", encoded(Image.fromarray(shades), "PNG"))
    seen = np.asarray(pictures.open(name))
    assert (seen == (shades >> 8)[..., None]).all() and seen.std() > 50


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_a_moving_picture_the_first_frame_is_shown(pictures: Pictures, form: str) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert pictures.open(put(pictures, "a", data)).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(
    pictures: Pictures, form: str, orientation: int
) -> None:
    upright = Image.new("RGB", (40, 24), "white")
    upright.paste("black", (0, 0, 20, 8))  # no two orientations alike
    undo = {None: None, **picture_files.UPRIGHT}.get(orientation)
    back = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270}
    back[Image.Transpose.ROTATE_270] = Image.Transpose.ROTATE_90
    stored = upright if undo is None else upright.transpose(back.get(undo, undo))
    exif = Image.Exif()
    exif[picture_files.ORIENTATION] = orientation
    options = {"quality": 95} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    name = put(pictures, "a", encoded(stored, form, exif=exif, **options))
    seen = np.asarray(pictures.open(name)).astype(int)
    assert pictures.size(name) == (24, 40) == seen.shape[:2]
    assert abs(seen - np.asarray(upright)).mean() < 8


def test_damaged_orientation_takes_nothing_from_a_picture(pictures: Pictures) -> None:
    data = encoded(Image.new("RGB", (9, 5)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert pictures.size(put(pictures, "a", data)) == (5, 9)
    assert pictures.open("a").size == (9, 5)
