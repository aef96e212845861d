"""Pictures in other depths, batches that grow, comparisons, sizes by proportion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from engine.graph.catalogue import Catalogue
from engine.graph.metadata import read_metadata
from engine.graph.registry import Registry
from engine.graph.validation import validate
from engine.nodes import load_all
from engine.nodes.image import NotFinite, image_compare, save_image
from engine.nodes.image_batch import batch_images
from engine.nodes.image_formats import save_image_advanced
from engine.nodes.resolution import resolution_selector
from engine.workspace import Workspace
from tests.nodes.context import Context

PROMPT = {"1": {"class_type": "SaveImageAdvanced", "inputs": {}}}
WORKFLOW = {"nodes": [], "extra": {"name": "猫"}}


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create(), prompt=PROMPT, extra_pnginfo={"workflow": WORKFLOW})


def png(depth: str) -> dict[str, str]:
    return {"format": "png", "bit_depth": depth, "input_color_space": "sRGB"}


def exr(colour: str) -> dict[str, str]:
    return {"format": "exr", "bit_depth": "32-bit float", "input_color_space": colour}


def saved(ctx: Context, images: torch.Tensor, format: dict[str, str]) -> list[Path]:
    made = save_image_advanced(ctx, images, "deep/picture", format)
    assert made["result"] == (images,)
    return [ctx.workspace.output / one["subfolder"] / one["filename"] for one in made["ui"]["images"]]


def levels16(path: Path) -> np.ndarray:
    """Sixteen bits a channel, as the filters and the chunks of the PNG specification have them; Pillow gives eight."""
    import zlib

    data, found, place = path.read_bytes(), {}, 8
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        found[data[place + 4 : place + 8]] = data[place + 8 : place + 8 + size]
        place += 12 + size
    width, height = (int.from_bytes(found[b"IHDR"][i : i + 4], "big") for i in (0, 4))
    rows = np.frombuffer(zlib.decompress(found[b"IDAT"]), np.uint8).reshape(height, -1)
    assert set(rows[:, 0]) == {2}
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).view(">u2").reshape(height, width, -1)


def test_sixteen_bits_and_the_workflow_are_in_a_png(ctx: Context):
    images = torch.rand(2, 5, 7, 3)
    images[0, 0, 0] = torch.tensor([0.0, 1.0, 1.5])
    paths = saved(ctx, images, png("16-bit"))
    assert [path.name for path in paths] == ["picture_00001_.png", "picture_00002_.png"]
    for path, pixels in zip(paths, images, strict=True):
        expected = np.clip(pixels.double().numpy() * 65535, 0, 65535).astype(np.uint16)
        assert np.array_equal(levels16(path), expected)
        with Image.open(path) as picture:
            picture.load()
            assert picture.size == (7, 5) and picture.mode == "RGB"
            assert np.array_equal(np.asarray(picture), expected >> 8)
        found = read_metadata(path)
        assert found.prompt == PROMPT and found.workflow == WORKFLOW


@pytest.mark.parametrize(("channels", "mode"), [(1, "I;16"), (4, "RGBA")])
def test_grey_and_alpha_have_sixteen_bits_too(ctx: Context, channels: int, mode: str):
    (path,) = saved(ctx, torch.full((1, 2, 3, channels), 0.5), png("16-bit"))
    with Image.open(path) as picture:
        assert picture.mode == mode
    assert levels16(path).tolist() == np.full((2, 3, channels), 32767).tolist()


def test_eight_bits_are_the_file_of_the_ordinary_node(ctx: Context):
    images = torch.rand(1, 4, 4, 3)
    (path,) = saved(ctx, images, png("8-bit"))
    (plain,) = save_image(ctx, images, "plain")["ui"]["images"]
    assert path.read_bytes() == (ctx.workspace.output / plain["filename"]).read_bytes()


@pytest.mark.parametrize(
    ("colour", "light"),
    [
        ("linear", lambda v: v),
        ("sRGB", lambda v: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)),
        ("HDR", lambda v: np.where(v <= 0.5, v * v / 3, (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12)),
    ],
)
def test_an_exr_holds_linear_light_and_the_workflow(ctx: Context, colour: str, light: Any):
    images = torch.rand(1, 4, 6, 3)
    images[0, 0, :3, 0] = torch.tensor([0.0, 0.5, 1.0])
    (path,) = saved(ctx, images, exr(colour))
    assert path.suffix == ".exr"
    with OpenEXR.File(str(path)) as file:
        pixels = file.channels()["RGB"].pixels.copy()
        header = dict(file.header())
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, light(images[0].double().numpy()), rtol=2e-6, atol=1e-7)
    texts = read_metadata(ctx.workspace.output / save_image(ctx, images, "p")["ui"]["images"][0]["filename"]).texts()
    assert {name: header[name] for name in texts} == texts and set(texts) >= {"prompt", "workflow"}
    assert header["chromaticities"][0] == pytest.approx(0.708 if colour == "HDR" else 0.64)


def test_hlg_meets_at_its_half_and_ends_at_one(ctx: Context):
    images = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 3, 1).repeat(1, 1, 1, 3)
    (path,) = saved(ctx, images, exr("HDR"))
    with OpenEXR.File(str(path)) as file:
        values = file.channels()["RGB"].pixels[0, :, 0].tolist()
    assert values == pytest.approx([0.0, 1 / 12, 1.0], abs=1e-6)


def test_brighter_than_white_stays_so_in_an_exr_and_alpha_as_it_is(ctx: Context):
    (path,) = saved(ctx, torch.tensor([2.0, -0.5, 4.0, 0.25]).reshape(1, 1, 1, 4), exr("linear"))
    with OpenEXR.File(str(path)) as file:
        assert file.channels()["RGBA"].pixels[0, 0].tolist() == [2.0, -0.5, 4.0, 0.25]
    (path,) = saved(ctx, torch.full((1, 1, 1, 4), 0.5), exr("sRGB"))
    with OpenEXR.File(str(path)) as file:
        assert file.channels()["RGBA"].pixels[0, 0, 3] == 0.5


def test_what_is_no_number_is_not_saved(ctx: Context):
    with pytest.raises(NotFinite):
        save_image_advanced(ctx, torch.full((1, 2, 2, 3), float("nan")), "x", exr("linear"))
    assert list(ctx.workspace.output.iterdir()) == []


def test_a_draft_is_a_marked_png_whatever_was_asked(ctx: Context):
    ctx.draft = True
    (one,) = save_image_advanced(ctx, torch.zeros(1, 64, 64, 3), "x", exr("HDR"))["ui"]["images"]
    assert one["type"] == "temp" and one["filename"].endswith(".png")
    assert read_metadata(ctx.workspace.temp / one["filename"]).draft


def test_the_format_is_judged_with_what_it_brings(tmp_path: Path):
    registry = Registry()
    load_all(registry)
    catalogue, workspace = Catalogue.of(registry), Workspace(tmp_path).create()

    def errors(**format: str) -> list[tuple[str, str]]:
        inputs = {"images": ["1", 0], "filename_prefix": "x"} | {k.replace("__", "."): v for k, v in format.items()}
        size = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
        document = {
            "1": {"class_type": "EmptyImage", "inputs": size},
            "2": {"class_type": "SaveImageAdvanced", "inputs": inputs},
        }
        found = validate(document, catalogue, workspace).node_errors.get("2", {"errors": []})
        return [(one["type"], one["extra_info"]["input_name"]) for one in found["errors"]]

    assert errors(format="png", format__bit_depth="16-bit", format__input_color_space="sRGB") == []
    assert errors(format="exr", format__bit_depth="32-bit float", format__input_color_space="HDR") == []
    assert errors(format="exr", format__bit_depth="8-bit", format__input_color_space="HDR") == [
        ("value_not_in_list", "format.bit_depth")
    ]
    assert errors(format="png", format__bit_depth="8-bit") == [("required_input_missing", "format.input_color_space")]
    assert errors(format="webp") == [("value_not_in_list", "format")]


def test_pictures_become_one_batch_of_the_size_of_the_first(ctx: Context):
    first, wide, clear = torch.rand(2, 4, 6, 3), torch.zeros(1, 4, 12, 3), torch.zeros(1, 4, 6, 4)
    wide[:, :, 3:9] = 1.0  # what is left when it is cut to the proportions of the first
    (made,) = batch_images(ctx, {"image0": first, "image1": wide})
    assert torch.equal(made[:2], first) and torch.equal(made[2:], torch.ones(1, 4, 6, 3))
    (made,) = batch_images(ctx, {"image0": first, "image3": clear})
    assert made.shape == (3, 4, 6, 4) and made[:2, ..., 3].min() == 1.0 and made[2].max() == 0.0
    assert torch.equal(batch_images(ctx, {"image0": first})[0], first)


def test_both_pictures_of_a_comparison_are_shown(ctx: Context):
    made = image_compare(ctx, torch.zeros(2, 4, 4, 3), torch.ones(1, 4, 4, 3), ["", ""])["ui"]
    assert [len(made[name]) for name in ("a_images", "b_images")] == [2, 1]
    for one in (*made["a_images"], *made["b_images"]):
        assert one["type"] == "temp" and (ctx.workspace.temp / one["filename"]).is_file()
    assert image_compare(ctx, None, torch.ones(1, 4, 4, 3))["ui"].keys() == {"b_images"}


@pytest.mark.parametrize(
    ("ratio", "megapixels", "multiple", "size"),
    [
        ("1:1 (Square)", 1.0, 8, (1024, 1024)),
        ("16:9 (Widescreen)", 1.0, 8, (1368, 768)),
        ("9:16 (Portrait Widescreen)", 0.4, 32, (480, 864)),
        ("21:9 (Ultrawide)", 4.0, 64, (3136, 1344)),
        ("3:2 (Photo)", 0.1, 256, (512, 256)),
    ],
)
def test_a_size_follows_from_proportion_and_count(
    ctx: Context, ratio: str, megapixels: float, multiple: int, size: tuple[int, int]
):
    assert resolution_selector(ctx, ratio, megapixels, multiple) == size
