"""Reading and writing picture files: all the bad ones, numbering, and paths that stay inside."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import OutsideWorkspace
from engine.graph.limits import MAX_PIXELS
from engine.graph.metadata import UnreadablePicture
from engine.graph.pictures import BadFileName, PictureTooBig, mark_as_draft, next_files, read_picture, to_picture

RED = np.array([1.0, 0.0, 0.0], np.float32)


def saved(tmp_path: Path, picture: Image.Image, name: str = "a.png", **options) -> Path:
    path = tmp_path / name
    picture.save(path, **options)
    return path


def test_a_plain_picture_has_its_levels_and_no_mask(tmp_path):
    pixels, mask = read_picture(saved(tmp_path, Image.new("RGB", (3, 2), (255, 128, 0)), "名 with spaces 🦊.png"))
    assert pixels.shape == (1, 2, 3, 3)
    assert pixels.dtype == np.float32
    assert pixels[0, 0, 0].tolist() == [1.0, np.float32(128 / 255), 0.0]
    assert mask is None


def test_alpha_becomes_a_mask_of_what_is_transparent(tmp_path):
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (255, 0, 0, 0))
    pixels, mask = read_picture(saved(tmp_path, picture))
    assert mask is not None
    assert mask[0].tolist() == [[0.0, 1.0]]
    assert (pixels[0] == RED).all()


def test_a_palette_with_a_transparent_colour_has_a_mask(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    pixels, mask = read_picture(saved(tmp_path, picture, transparency=1))
    assert mask is not None
    assert mask[0].tolist() == [[0.0, 1.0]]
    assert pixels[0, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_sixteen_bits_are_kept(tmp_path):
    levels = np.array([[0, 32768, 65535]], np.uint16)
    pixels, _ = read_picture(saved(tmp_path, Image.fromarray(levels)))
    assert pixels[0, 0, :, 0] == pytest.approx([0.0, 32768 / 65535, 1.0], abs=1e-6)


def test_cmyk_becomes_rgb(tmp_path):
    pixels, _ = read_picture(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100))
    assert pixels[0, 4, 4] == pytest.approx([1.0, 0.0, 0.0], abs=0.03)


def test_a_photo_is_turned_as_its_exif_says(tmp_path):
    picture = Image.new("RGB", (4, 2), "red")
    exif = picture.getexif()
    exif[0x0112] = 6
    pixels, _ = read_picture(saved(tmp_path, picture, "a.jpg", exif=exif))
    assert pixels.shape == (1, 4, 2, 3)


def test_an_animation_becomes_a_batch(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path, frames[0], "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    pixels, _ = read_picture(path)
    assert pixels[:, 0, 0].round().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"])
def test_what_is_no_picture_is_refused(content, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UnreadablePicture, match=r"a\.png"):
        read_picture(path)


def test_a_truncated_picture_is_refused(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path = saved(tmp_path, picture)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadablePicture):
        read_picture(path)


def test_a_broken_picture_is_refused(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (64, 64), "red"))
    content = bytearray(path.read_bytes())
    content[50:60] = b"\0" * 10
    path.write_bytes(content)
    with pytest.raises(UnreadablePicture):
        read_picture(path)


@pytest.mark.parametrize("size", [(60_000, 60_000), (20_000, 2), (2**14, MAX_PIXELS // 2**14 + 1)])
def test_a_decompression_bomb_is_refused_by_its_header(size, tmp_path):
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    path = tmp_path / "bomb.png"
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises((PictureTooBig, UnreadablePicture)):
        read_picture(path)


def test_levels_are_cut_as_in_comfyui():
    picture = to_picture(np.array([[[0.9999, -1.0, 2.0]]], np.float32))
    assert picture.getpixel((0, 0)) == (254, 0, 255)


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (512, 300)])
def test_a_draft_is_marked_visibly(size):
    plain = Image.new("RGB", size, "black")
    marked = mark_as_draft(plain)
    changed = np.asarray(marked).any(axis=-1).mean()
    assert marked.size == size
    assert changed > 0.02
    assert marked.getpixel((0, 0)) == (255, 0, 255)
    assert not np.asarray(plain).any()


def test_numbers_go_on_from_what_is_there(tmp_path):
    for name in ("x_00004_.png", "x_00002_.latent", "X_00007_.png", "xy_00050_.png", "x_abc_.png", "x_1_2_.png"):
        (tmp_path / name).touch()
    assert next_files(tmp_path, "x").name(0, ".png") == "x_00008_.png"
    assert next_files(tmp_path, "xy").name(1, ".png") == "xy_00052_.png"
    assert next_files(tmp_path, "new").name(0, ".png") == "new_00001_.png"


def test_a_prefix_may_hold_folders_and_patterns(tmp_path):
    files = next_files(tmp_path, "ref/%width%x%height%/a%batch_num%", 64, 32)
    assert (files.subfolder, files.name(2, ".png")) == ("ref/64x32", "a2_00003_.png")
    assert (tmp_path / "ref" / "64x32").is_dir()
    year = next_files(tmp_path, "%date:yyyy-MM-dd%").stem
    assert len(year) == 10
    assert year[4] == "-"
    assert next_files(tmp_path, r"win\dir\a").subfolder == "win/dir"


@pytest.mark.parametrize(
    "prefix", ["../a", "a/../../b", "/etc/a", "sub/../../../x", r"..\a", "a\nb", "a\0b", "x" * 300]
)
def test_a_prefix_never_leaves_its_folder(prefix, tmp_path):
    root = tmp_path / "output"
    root.mkdir()
    with pytest.raises((OutsideWorkspace, BadFileName)):
        next_files(root, prefix)
    assert list(tmp_path.iterdir()) == [root]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "out").symlink_to(tmp_path)
    with pytest.raises(OutsideWorkspace):
        next_files(tmp_path / "output", "out/a")


def test_reading_what_was_written_gives_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.float32) / 255
    file = io.BytesIO()
    to_picture(pixels + 1e-6).save(file, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(file.getvalue())
    assert np.array_equal(read_picture(path)[0][0], pixels)
