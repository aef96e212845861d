from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.dataset.decoding import (
    AnimatedPicture,
    EmptyPicture,
    NotAPicture,
    PictureGone,
    PictureTooLarge,
    TruncatedPicture,
    open_rgb,
    read_facts,
    to_rgb,
)
from engine.dataset.library import Dataset
from engine.dataset.pictures import scan, thumbnail
from engine.errors import PictureError


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header promises 50,000 x 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def animated(format: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), (shade, 0, 0)) for shade in (0, 100, 200)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


BAD: dict[str, tuple[bytes, type[PictureError]]] = {
    "zero.png": (b"", EmptyPicture),
    "text.png": (b"this is a text", NotAPicture),
    "cut.jpg": (encoded(noise(), "JPEG")[:900], TruncatedPicture),
    "cut.png": (encoded(noise(), "PNG")[:900], TruncatedPicture),
    "cut.webp": (encoded(noise(), "WEBP")[:900], NotAPicture),
    "head.png": (encoded(noise(), "PNG")[:20], NotAPicture),
    "bomb.png": (bomb(), PictureTooLarge),
    "moving.gif": (animated("GIF"), AnimatedPicture),
    "moving.webp": (animated("WEBP"), AnimatedPicture),
    "moving.png": (animated("PNG"), AnimatedPicture),
    "pages.tif": (animated("TIFF"), AnimatedPicture),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_has_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    data, kind = BAD[name]
    with pytest.raises(kind) as caught:
        read_facts(data, name)
    assert name in caught.value.text("en") and name in caught.value.text("zh")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(kind):
        open_rgb(tmp_path / name)


def test_bad_pictures_are_listed_and_never_stop_the_rest(dataset: Dataset) -> None:
    for name, (data, _) in BAD.items():
        (dataset.root / name).write_bytes(data)
    report = scan(dataset)
    assert {name: error["code"] for name, error in report.problems.items()} == {
        name: kind.__name__ for name, (_, kind) in BAD.items()
    }
    assert [p.name for p in dataset.store.pictures()] == ["a.png", "b.png", "c.jpg"]
    assert {row.path for row in dataset.store.problems()} == set(BAD)
    assert scan(dataset).problems == report.problems
    (dataset.root / "zero.png").write_bytes(encoded(noise(), "PNG"))
    assert "zero.png" not in scan(dataset).problems


def test_damage_in_the_middle_is_found_when_it_is_shown(dataset: Dataset) -> None:
    data = bytearray(encoded(noise((300, 300)), "PNG"))
    data[2000:2100] = b"\0" * 100
    (dataset.root / "hole.png").write_bytes(data)
    scan(dataset)
    hole = next(p for p in dataset.store.pictures() if p.name == "hole.png")
    with pytest.raises(PictureError):
        thumbnail(dataset, hole)
    assert [row.path for row in dataset.store.problems()] == ["hole.png"]


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(PictureGone, match=r"no\.png"):
        open_rgb(tmp_path / "no.png")


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    red, green, blue = open_rgb(tmp_path / "c.jpg").getpixel((5, 5))  # type: ignore[misc]
    assert red > 240 and green < 15 and blue < 15


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.asarray(open_rgb(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] + [0] * 765)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert open_rgb(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert open_rgb(tmp_path / "palette.png").getpixel((0, 0)) == (255, 255, 255)
    assert open_rgb(tmp_path / "clear.png", ground=(1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"])
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


def test_a_turned_phone_picture_is_upright_and_so_is_its_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise((60, 40)), "JPEG", exif=exif)
    facts = read_facts(data, "phone.jpg")
    assert (facts.width, facts.height) == (40, 60)
    (tmp_path / "phone.jpg").write_bytes(data)
    assert open_rgb(tmp_path / "phone.jpg").size == (40, 60)
    png = encoded(noise((60, 40)), "PNG", exif=exif)
    assert (read_facts(png, "phone.png").width, read_facts(png, "phone.png").height) == (40, 60)


def test_a_large_jpeg_is_decoded_small_and_means_the_same(tmp_path: Path) -> None:
    base = noise((24, 32)).resize((1200, 1600), Image.Resampling.BICUBIC)
    base.save(tmp_path / "large.jpg", quality=95)
    draft, full = open_rgb(tmp_path / "large.jpg", at_least=128), open_rgb(tmp_path / "large.jpg")
    assert draft.size == (300, 400) and full.size == (1200, 1600)
    small = [np.asarray(im.resize((128, 128), Image.Resampling.BICUBIC), np.float32) for im in (draft, full)]
    assert float(np.abs(small[0] - small[1]).mean()) < 1.0


def test_names_with_spaces_chinese_and_emoji(dataset: Dataset) -> None:
    for name in ("with space.png", "红色 帽子.png", "🎈party.png"):
        (dataset.root / name).write_bytes(encoded(noise((20, 20 + len(name))), "PNG"))
    scan(dataset)
    assert {"with space.png", "红色 帽子.png", "🎈party.png"} < {p.name for p in dataset.store.pictures()}


def test_a_thumbnail_is_a_small_webp_made_once(dataset: Dataset) -> None:
    (dataset.root / "wide.png").write_bytes(encoded(noise((900, 300)), "PNG"))
    scan(dataset)
    wide = next(p for p in dataset.store.pictures() if p.name == "wide.png")
    path = thumbnail(dataset, wide)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("WEBP", (320, 107))
    made = path.stat().st_mtime_ns
    assert thumbnail(dataset, wide).stat().st_mtime_ns == made
