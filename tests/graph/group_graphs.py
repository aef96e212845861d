"""Workflows with group nodes, as editors before subgraphs wrote them."""

from __future__ import annotations

from typing import Any

SAMPLER_INPUTS = [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
LATENT = ("latent_image", "LATENT")
VALUES = [("seed", "INT"), ("steps", "INT"), ("cfg", "FLOAT"), ("sampler_name", "COMBO"), ("scheduler", "COMBO")]


def node(
    kind: str, inputs: Any = (), outputs: Any = (), values: Any = None, converted: Any = (), **more: Any
) -> dict[str, Any]:
    """`inputs`: (name, type) or (name, type, link). `converted`: those of values that had been made inputs."""
    rows = [*((*row, None)[:3] for row in inputs), *((*row, None)[:3] for row in converted)]
    made = [row[0] for row in converted]
    return {
        "id": more.pop("id", -1),
        "type": kind,
        "pos": [0, 0],
        "size": [200, 100],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if name in made else {})}
            for name, kind, link in rows
        ],
        "outputs": [{"name": name, "type": name, "links": [], "slot_index": n} for n, name in enumerate(outputs)],
        "properties": {},
        "widgets_values": values,
        **more,
    }


def workflow(nodes: list[dict[str, Any]], links: list[list[Any]], groups: dict[str, Any]) -> dict[str, Any]:
    return {
        "last_node_id": 99,
        "last_link_id": 99,
        "nodes": [{**one, "order": place} for place, one in enumerate(nodes)],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {"groupNodes": groups},
        "version": 0.4,
    }


def _group(nodes: list[dict[str, Any]], links: list[list[Any]], **more: Any) -> dict[str, Any]:
    return {"nodes": [{**one, "index": n} for n, one in enumerate(nodes)], "links": links, "external": [], **more}


def _encoder(text: str) -> dict[str, Any]:
    return node("CLIPTextEncode", [("clip", "CLIP")], ["CONDITIONING"], [text])


CHECKPOINT = node("CheckpointLoaderSimple", [], ["MODEL", "CLIP", "VAE"], ["x.safetensors"], id=1)
EMPTY = node("EmptyLatentImage", [], ["LATENT"], [64, 64, 1], id=2)

TWO_ENCODERS = workflow(
    [
        CHECKPOINT,
        EMPTY,
        node(
            "workflow/Both",
            [("clip", "CLIP", 1), ("CLIPTextEncode clip", "CLIP", 2), ("model", "MODEL", 3), (*LATENT, 4)],
            ["LATENT"],
            ["one", "two", 77, "randomize", 11, 3.5, "dpmpp_2m", "karras", 0.5],
            id=5,
        ),
        node("VAEDecode", [("samples", "LATENT", 5), ("vae", "VAE", 6)], ["IMAGE"], id=6),
        node("SaveImage", [("images", "IMAGE", 7)], [], ["out"], id=7),
    ],
    [
        [1, 1, 1, 5, 0, "CLIP"],
        [2, 1, 1, 5, 1, "CLIP"],
        [3, 1, 0, 5, 2, "MODEL"],
        [4, 2, 0, 5, 3, "LATENT"],
        [5, 5, 0, 6, 0, "LATENT"],
        [6, 1, 2, 6, 1, "VAE"],
        [7, 6, 0, 7, 0, "IMAGE"],
    ],
    {
        "Both": _group(
            [
                _encoder("a"),
                _encoder("b"),
                node("KSampler", [*SAMPLER_INPUTS, LATENT], ["LATENT"], [1, "randomize", 20, 8, "euler", "normal", 1]),
            ],
            [[0, 0, 2, 1, 1, "CONDITIONING"], [1, 0, 2, 2, 2, "CONDITIONING"]],
        )
    },
)

_SECOND = [6, "increment", 22, 7.5, "lms", "simple", 0.25]
# Its inputs that are hidden or have names of their own, and a value that was made an input inside.
NAMED = workflow(
    [
        CHECKPOINT,
        EMPTY,
        node(
            "workflow>Pair",
            [
                ("model", "MODEL", 1),
                ("positive", "CONDITIONING"),
                ("Second model", "MODEL", 2),
                ("Second positive", "CONDITIONING"),
                ("Second negative", "CONDITIONING"),
                ("LATENT", "LATENT", 3),
            ],
            ["raw", "final"],
            [33, "fixed", 5, "randomize", "dpmpp_2m", "karras", 0.5, *_SECOND, 4.5],
            id=5,
        ),
        node("VAEDecode", [("samples", "LATENT", 4), ("vae", "VAE")], ["IMAGE"], id=6),
        node("VAEDecode", [("samples", "LATENT", 5), ("vae", "VAE")], ["IMAGE"], id=7),
    ],
    [
        [1, 1, 0, 5, 0, "MODEL"],
        [2, 1, 0, 5, 2, "MODEL"],
        [3, 2, 0, 5, 5, "LATENT"],
        [4, 5, 0, 6, 0, "LATENT"],
        [5, 5, 1, 7, 0, "LATENT"],
    ],
    {
        "Pair": _group(
            [
                node("PrimitiveNode", [], ["INT"], [30, "fixed"], title="Steps"),
                node(
                    "KSampler",
                    [*SAMPLER_INPUTS, LATENT],
                    ["LATENT"],
                    [1, "randomize", 20, 8, "euler", "normal", 1],
                    [("steps", "INT"), ("cfg", "FLOAT")],
                    title="First",
                ),
                node(
                    "KSampler",
                    [*SAMPLER_INPUTS, LATENT],
                    ["LATENT"],
                    [2, "fixed", 21, 7, "heun", "karras", 1],
                    title="Second",
                ),
                node("Reroute", [("", "*")], ["LATENT"]),
            ],
            [[0, 0, 1, 4, 10, "INT"], [1, 0, 2, 3, 11, "LATENT"], [3, 0, 1, 3, 12, "LATENT"]],
            external=[[1, 0, "LATENT"]],
            config={
                "1": {
                    "input": {"seed": {"name": "my seed"}, "negative": {"visible": False}},
                    "output": {"0": {"name": "raw"}},
                },
                "2": {"output": {"0": {"name": "final"}}},
            },
        )
    },
)

USED_TWICE = workflow(
    [
        node("workflow>Picture", [], ["MASK", "IMAGE"], ["b.png", "image", "lanczos", 32, 33, "center"], id=5),
        node("workflow>Picture", [], ["MASK", "IMAGE"], ["c.png", "image", "area", 34, 35, "disabled"], id=6),
        node("PreviewImage", [("images", "IMAGE", 1)], [], id=7),
        node("PreviewImage", [("images", "IMAGE", 2)], [], id=8),
    ],
    [[1, 5, 1, 7, 0, "IMAGE"], [2, 6, 1, 8, 0, "IMAGE"]],
    {
        "Picture": _group(
            [
                node("LoadImage", [], ["IMAGE", "MASK"], ["a.png", "image"]),
                node("ImageScale", [("image", "IMAGE")], ["IMAGE"], ["bilinear", 64, 64, "disabled"]),
                node("ImageInvert", [("image", "IMAGE")], ["IMAGE"], mode=4),
            ],
            [[0, 0, 1, 0, 1, "IMAGE"], [1, 0, 2, 0, 1, "IMAGE"]],
        )
    },
)

_NEWER = [*VALUES, ("denoise", "FLOAT")]
VALUES_AS_INPUTS = workflow(  # newer editors list each value among the inputs as well
    [
        EMPTY,
        node("PrimitiveInt", [], ["INT"], [9, "fixed"], id=3),
        node(
            "workflow>New",
            [
                *SAMPLER_INPUTS,
                (*LATENT, 3),
                ("S2 model", "MODEL"),
                ("S2 positive", "CONDITIONING"),
                ("S2 negative", "CONDITIONING"),
            ],
            ["LATENT"],
            [5, "randomize", 12, 5.5, "dpmpp_2m", "karras", 0.5, 6, "increment", 22, 7.5, "lms", "simple", 0.25],
            [("seed", "INT"), ("steps", "INT", 4)],
            id=5,
        ),
        node("LatentUpscaleBy", [("samples", "LATENT", 5)], ["LATENT"], ["bilinear", 2], id=6),
        node("PreviewAny", [("source", "*", 6)], [], id=7),
    ],
    [
        [3, 2, 0, 5, 3, "LATENT"],
        [4, 3, 0, 5, 8, "INT"],
        [5, 5, 0, 6, 0, "LATENT"],
        [6, 6, 0, 7, 0, "LATENT"],
    ],
    {
        "New": _group(
            [
                node(
                    "KSampler",
                    [*SAMPLER_INPUTS, LATENT],
                    ["LATENT"],
                    [1, "randomize", 20, 8, "euler", "normal", 1],
                    _NEWER,
                ),
                node(
                    "KSampler",
                    [*SAMPLER_INPUTS, LATENT],
                    ["LATENT"],
                    [2, "fixed", 21, 7, "heun", "karras", 1],
                    _NEWER,
                    title="S2",
                ),
            ],
            [[0, 0, 1, 3, 11, "LATENT"]],
        )
    },
)

IN_A_GROUP = workflow(
    [
        node("workflow>Outer", [], ["IMAGE"], [16, 17, 1, 5, "bicubic", 4], id=5),
        node("PreviewImage", [("images", "IMAGE", 1)], [], id=7),
    ],
    [[1, 5, 0, 7, 0, "IMAGE"]],
    {
        "Inner": _group(
            [
                node("ImageInvert", [("image", "IMAGE")], ["IMAGE"]),
                node("ImageScaleBy", [("image", "IMAGE")], ["IMAGE"], ["area", 2]),
            ],
            [[0, 0, 1, 0, 1, "IMAGE"]],
        ),
        "Outer": _group(
            [
                node("EmptyImage", [], ["IMAGE"], [8, 8, 1, 0]),
                node("workflow>Inner", [("image", "IMAGE")], ["IMAGE"], ["lanczos", 3]),
            ],
            [[0, 0, 1, 0, 1, "IMAGE"]],
        ),
    },
)
# Those on which the official editor's own conversion loses nothing.
AS_THE_EDITOR = {"two encoders": TWO_ENCODERS, "used twice": USED_TWICE, "values as inputs": VALUES_AS_INPUTS}
