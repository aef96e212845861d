"""Nodes on pictures, masks and text that need no model: exact values on small pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.graph.metadata import read_metadata
from engine.graph.node import OutputPictures
from engine.nodes import animation, compositing, image, image_batch, image_colour, image_transform, mask, strings
from engine.nodes.canny import edges_of
from engine.nodes.effects import RadiusTooLarge, image_blur
from engine.workspace import Workspace
from tests.nodes.context import Context


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def grid(*shape: int) -> Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape) / np.prod(shape)


def test_edges_are_thin_lines_and_weak_ones_hang_on_strong_ones():
    picture = torch.zeros(1, 3, 20, 20)
    picture[..., 10:] = 1.0
    edges = edges_of(picture, 0.1, 0.3)[0, 0]
    assert edges.unique().tolist() == [0.0, 1.0]
    assert edges[5].sum() == 1.0 and edges[:, 9:11].sum() == 20.0
    faint = picture * 0.08
    assert edges_of(faint, 0.1, 0.9).sum() == 0.0, "no strong pixel, so no edge"
    assert edges_of(faint, 0.1, 0.2).sum() > 0.0


def test_a_tiny_picture_has_edges_too():
    assert edges_of(torch.rand(1, 3, 1, 2), 0.1, 0.2).shape == (1, 1, 1, 2)


def test_a_source_lies_where_it_fits_and_its_mask_says_how_much(ctx: Context):
    below, above = torch.zeros(1, 4, 6, 3), torch.ones(1, 3, 3, 3)
    (laid,) = compositing.image_composite_masked(ctx, below, above, 4, 2, False)
    assert laid[0, 2:, 4:].min() == 1.0 and laid.sum() == 2 * 2 * 3 and below.sum() == 0.0
    (half,) = compositing.image_composite_masked(ctx, below, above, 0, 0, False, torch.full((1, 3, 3), 0.5))
    assert torch.equal(half[0, :3, :3], torch.full((3, 3, 3), 0.5))
    (far,) = compositing.image_composite_masked(ctx, below, above, 99, 99, False)
    assert torch.equal(far, below)
    (whole,) = compositing.image_composite_masked(ctx, below, above, 0, 0, True)
    assert torch.equal(whole, torch.ones(1, 4, 6, 3))


def test_a_destination_with_alpha_lends_the_source_one_and_one_without_drops_it(ctx: Context):
    (laid,) = compositing.image_composite_masked(ctx, torch.zeros(1, 2, 2, 4), torch.zeros(1, 1, 1, 3), 0, 0, False)
    assert laid[0, 0, 0].tolist() == [0, 0, 0, 1]
    (laid,) = compositing.image_composite_masked(ctx, torch.zeros(1, 2, 2, 3), torch.ones(1, 1, 1, 4), 0, 0, False)
    assert laid.shape == (1, 2, 2, 3)


def test_masks_are_combined_where_they_meet(ctx: Context):
    below, above = torch.tensor([[[0.2, 0.8], [0.8, 0.2]]]), torch.tensor([[[0.9, 0.9]]])
    results = {op: compositing.mask_composite(ctx, below, above, 0, 1, op)[0][0] for op in compositing._OPERATIONS}
    assert all(torch.equal(result[0], below[0, 0]) for result in results.values())
    rows = {op: [round(v, 3) for v in result[1].tolist()] for op, result in results.items()}
    assert rows == {
        "multiply": [0.72, 0.18],
        "add": [1.0, 1.0],
        "subtract": [0.0, 0.0],
        "and": [1.0, 0.0],
        "or": [1.0, 1.0],
        "xor": [0.0, 1.0],
    }


def test_alpha_is_split_off_and_joined_again(ctx: Context):
    picture = torch.rand(2, 3, 4, 4)
    colours, transparent = compositing.split_image_with_alpha(ctx, picture)
    assert torch.equal(compositing.join_image_with_alpha(ctx, colours, transparent)[0], picture)
    assert compositing.split_image_with_alpha(ctx, picture[..., :3])[1].sum() == 0.0
    (joined,) = compositing.join_image_with_alpha(ctx, colours, torch.ones(1, 8, 8))
    assert joined.shape == (1, 3, 4, 4) and joined[..., 3].sum() == 0.0


@pytest.mark.parametrize(
    ("mode", "colour", "transparent"),
    [
        ("SRC", 0.8, 0.5), ("DST", 0.4, 0.2), ("CLEAR", 0.0, 1.0), ("SRC_OVER", 0.6222, 0.1), ("DST_OVER", 0.4444, 0.1),
        ("SRC_IN", 0.8, 0.6), ("DST_IN", 0.4, 0.6), ("SRC_OUT", 0.8, 0.9), ("DST_OUT", 0.4, 0.6),
        ("SRC_ATOP", 0.6, 0.2), ("DST_ATOP", 0.48, 0.5), ("XOR", 0.48, 0.5), ("ADD", 0.72, 0.0),
        ("MULTIPLY", 0.32, 0.6), ("SCREEN", 0.6578, 0.1), ("DARKEN", 0.6222, 0.1), ("LIGHTEN", 0.7111, 0.1),
        ("OVERLAY", 0.2844, 0.1),
    ],
)  # fmt: skip
def test_porter_duff(ctx: Context, mode: str, colour: float, transparent: float):
    """A source of 0.8 that is half transparent over a destination of 0.4 that is so by a fifth."""
    source, destination = torch.full((1, 2, 2, 3), 0.8), torch.full((1, 2, 2, 3), 0.4)
    masks = torch.full((1, 2, 2), 0.5), torch.full((1, 2, 2), 0.2)
    picture, left = compositing.porter_duff_image_composite(ctx, source, masks[0], destination, masks[1], mode)
    assert (picture[0, 0, 0, 0].item(), left[0, 0, 0].item()) == pytest.approx((colour, transparent), abs=1e-4)


def test_porter_duff_brings_all_to_the_size_of_the_destination(ctx: Context):
    source, alpha = torch.rand(3, 5, 9, 4), torch.rand(1, 7, 7)
    parts = compositing.porter_duff_image_composite(ctx, source, alpha, torch.rand(2, 4, 6, 3), alpha, "SRC_OVER")
    assert [tuple(part.shape) for part in parts] == [(1, 4, 6, 3), (1, 4, 6)]


def test_batches_are_taken_apart_and_put_together(ctx: Context):
    batches = [torch.zeros(3, 2, 2, 3), torch.ones(2, 2, 2, 3)]
    (made,) = image_batch.rebatch_images(ctx, batches, [2])  # type: ignore[arg-type]
    assert [len(batch) for batch in made] == [2, 2, 1] and made[1][1].min() == 1.0
    with pytest.raises(image_batch.UnevenSizes, match="2 x 2 x 3 and of 3 x 2 x 3"):
        image_batch.rebatch_images(ctx, [batches[0], torch.ones(1, 2, 3, 3)], [4])  # type: ignore[arg-type]
    assert image_batch.repeat_image_batch(ctx, batches[1], 3)[0].shape[0] == 6
    (part,) = image_batch.image_from_batch(ctx, torch.arange(5.0).reshape(5, 1, 1, 1), 3, 9)
    assert part.flatten().tolist() == [3.0, 4.0]
    assert image_batch.image_from_batch(ctx, batches[1], 99, 1)[0].shape[0] == 1


@pytest.mark.parametrize(
    ("direction", "match", "spacing", "shape"),
    [
        ("right", True, 0, (2, 4, 6 + 2, 3)),
        ("down", True, 0, (2, 4 + 12, 6, 3)),
        ("left", False, 3, (2, 8, 6 + 4 + 4, 3)),
        ("up", False, 0, (2, 4 + 8, 6, 3)),
    ],
)
def test_pictures_are_stitched(ctx: Context, direction: str, match: bool, spacing: int, shape: tuple[int, ...]):
    first, second = torch.zeros(1, 4, 6, 3), torch.ones(2, 8, 4, 3)
    (made,) = image_batch.image_stitch(ctx, first, direction, match, spacing, "red", second)
    assert tuple(made.shape) == shape
    if spacing:
        assert made[0, 0, 4:8].tolist() == [[1.0, 0.0, 0.0]] * 4
    assert image_batch.image_stitch(ctx, first, direction, match, 0, "white") == (first,)


def test_a_stitched_picture_without_alpha_is_opaque(ctx: Context):
    (made,) = image_batch.image_stitch(ctx, torch.zeros(1, 2, 2, 4), "right", True, 2, "white", torch.zeros(1, 2, 2, 3))
    assert made[0, 0].tolist() == [[0, 0, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2 + [[0, 0, 0, 1]] * 2


def test_turns_go_clockwise_and_flips_along_their_axis(ctx: Context):
    picture = torch.tensor([[[[1.0], [2.0]], [[3.0], [4.0]]]])
    turned = {
        name: image_transform.image_rotate(ctx, picture, name)[0].flatten().tolist() for name in image_transform.TURNS
    }
    assert turned == {
        "none": [1, 2, 3, 4],
        "90 degrees": [3, 1, 4, 2],
        "180 degrees": [4, 3, 2, 1],
        "270 degrees": [2, 4, 1, 3],
    }
    flipped = [image_transform.image_flip(ctx, picture, name)[0].flatten().tolist() for name in image_transform.FLIPS]
    assert flipped == [[3, 4, 1, 2], [2, 1, 4, 3]]


def test_a_picture_is_fitted_into_a_frame_and_to_a_longest_side(ctx: Context):
    (framed,) = image_transform.resize_and_pad_image(ctx, torch.full((1, 2, 4, 3), 0.5), 8, 8, "white", "nearest-exact")
    assert framed[0, :, 0, 0].tolist() == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0]
    for shape, expected in (((2, 4), (8, 16)), ((4, 2), (16, 8)), ((3, 3), (16, 16)), ((1, 1000), (1, 16))):
        (scaled,) = image_transform.image_scale_to_max_dimension(ctx, torch.rand(1, *shape, 3), "area", 16)
        assert tuple(scaled.shape[1:3]) == expected
    assert image_transform.image_scale_to_max_dimension(ctx, framed, "area", 0) == (framed,)


def test_noise_is_that_of_its_seed(ctx: Context):
    grey = torch.full((1, 4, 4, 3), 0.5)
    (noisy,) = image_colour.image_add_noise(ctx, grey, 7, 0.1)
    expected = 0.5 + 0.1 * torch.randn(1, 4, 4, 3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(noisy, expected.clamp(0, 1))
    assert image_colour.image_add_noise(ctx, grey, 2**64 - 1, 1.0)[0].min() >= 0.0


@pytest.mark.parametrize("dither", ["none", "floyd-steinberg", "bayer-2", "bayer-16"])
def test_a_palette_has_as_many_colours_as_asked_for(ctx: Context, dither: str):
    (reduced,) = image_colour.image_quantize(ctx, grid(1, 16, 16, 3), 4, dither)
    assert len(reduced.reshape(-1, 3).unique(dim=0)) <= 4


def test_bayers_matrix_orders_its_cells_evenly():
    assert image_colour.bayer(2).tolist() == [[-0.375, 0.125], [0.375, -0.125]]
    for order in (2, 4, 8, 16):
        cells = np.sort(image_colour.bayer(order).flatten())
        assert np.allclose(np.diff(cells), 1 / order**2) and np.isclose(cells.sum(), 0, atol=1e-4)


def test_brightness_and_colour_are_parted_and_joined(ctx: Context):
    picture = torch.rand(1, 3, 3, 3)
    parts = image_colour.image_rgb_to_yuv(ctx, picture)
    assert parts[0][0, 0, 0].unique().numel() == 1
    assert torch.allclose(image_colour.image_yuv_to_rgb(ctx, *parts)[0], picture, atol=2e-3)


def test_morphology_takes_the_most_and_the_least_around(ctx: Context):
    picture = torch.zeros(1, 5, 5, 1)
    picture[0, 2, 2] = 1.0
    operations = {"erode": 0, "dilate": 9, "open": 0, "close": 1, "gradient": 9, "top_hat": 1, "bottom_hat": 0}
    done = {op: image_colour.morphology(ctx, picture, op, 3)[0].sum().item() for op in operations}
    assert done == operations
    corner = torch.zeros(1, 3, 3, 1)
    assert image_colour.morphology(ctx, corner, "dilate", 999)[0].abs().sum() == 0.0


def test_a_mask_of_one_colour(ctx: Context):
    picture = torch.tensor([[[[1.0, 0.5, 0.0], [1.0, 0.5, 0.01]]]])
    assert mask.image_color_to_mask(ctx, picture, 0xFF8000)[0].tolist() == [[[1.0, 0.0]]]


def test_a_mask_is_shown_as_a_picture(ctx: Context):
    (row,) = mask.mask_preview(ctx, torch.ones(3, 4))["ui"]["images"]
    assert row["type"] == "temp"
    assert Image.open(ctx.workspace.temp / row["filename"]).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_a_batch_is_saved_as_one_moving_picture_with_its_workflow(ctx: Context, kind: str):
    ctx.prompt, ctx.extra_pnginfo = {"1": {"class_type": "X", "inputs": {}}}, {"workflow": {"nodes": []}}
    frames = torch.stack([torch.full((8, 8, 3), value) for value in (0.0, 0.5, 1.0)])
    if kind == "webp":
        ui = animation.save_animated_webp(ctx, frames, "a/moving", 10.0, True, 80, "default")["ui"]
    else:
        ui = animation.save_animated_png(ctx, frames, "a/moving", 10.0, 4)["ui"]
    assert ui == {
        "images": [{"filename": f"moving_00001_.{kind}", "subfolder": "a", "type": "output"}],
        "animated": (True,),
    }
    path = ctx.workspace.output / "a" / f"moving_00001_.{kind}"
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.info.get("duration", 100)) == (3, 100)  # type: ignore[attr-defined]
        picture.seek(2)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    metadata = read_metadata(path)
    assert (metadata.prompt, metadata.workflow) == (ctx.prompt, {"nodes": []})
    with pytest.raises(image.NotFinite):
        animation.save_animated_png(ctx, frames * float("nan"), "bad", 1.0, 4)


def test_pictures_of_the_output_folder_are_listed_newest_first_and_loaded(ctx: Context):
    (ctx.workspace.output / "sub").mkdir()
    for i, name in enumerate(("a.png", "sub/b.png", "notes.txt")):
        path = ctx.workspace.output / name
        Image.new("RGB", (2, 2), "red").save(path) if name.endswith("png") else path.write_text("x")
        import os

        os.utime(path, (i, i))
    assert OutputPictures()(ctx.workspace) == ["sub/b.png [output]", "a.png [output]"]
    assert image.load_image_output(ctx, "sub/b.png [output]")[0].shape == (1, 2, 2, 3)
    assert OutputPictures().problem(ctx.workspace, "../x.png [output]")


@pytest.mark.parametrize("size", [3, 2])
def test_a_radius_larger_than_the_picture_is_named(ctx: Context, size: int):
    with pytest.raises(RadiusTooLarge, match="radius of 3"):
        image_blur(ctx, torch.rand(1, size, 9, 3), 3, 1.0)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda c: strings.string_substring(c, "abcdef", 1, -1), "bcde"),
        (lambda c: strings.string_length(c, "a狐b"), 3),
        (lambda c: strings.case_converter(c, "a bC", "Title Case"), "A Bc"),
        (lambda c: strings.string_trim(c, " a ", "Left"), "a "),
        (lambda c: strings.string_replace(c, "aXbX", "X", "-"), "a-b-"),
        (lambda c: strings.string_contains(c, "Abc", "aB", False), True),
        (lambda c: strings.string_contains(c, "Abc", "aB", True), False),
        (lambda c: strings.string_compare(c, "Abc", "aB", "Starts With", False), True),
        (lambda c: strings.string_compare(c, "Abc", "abc", "Equal", True), False),
        (lambda c: strings.regex_match(c, "A\nb", "^B$", True, True, False), True),
        (lambda c: strings.regex_extract(c, "a1 b2", r"([a-z])(\d)", "All Groups", True, False, False, 2), "1\n2"),
        (lambda c: strings.regex_extract(c, "a1 b2", r"[a-z]\d", "First Match", True, False, False, 1), "a1"),
        (lambda c: strings.regex_extract(c, "a1", r"x", "All Matches", True, False, False, 1), ""),
        (lambda c: strings.regex_extract(c, "a1", r"a", "First Group", True, False, False, 5), ""),
        (lambda c: strings.regex_replace(c, "a1 b2", r"([a-z])(\d)", r"\2\1", count=1), "1a b2"),
    ],
)
def test_text(ctx: Context, call, answer):
    assert call(ctx) == (answer,)
