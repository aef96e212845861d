"""A V3 pack: schemas, typed sockets, inputs that depend on others, an extension."""

import torch
from comfy_api.latest import ComfyAPI, ComfyAPISync, ComfyExtension, io, ui
from comfy_api.latest._io import ComfyTypeIO, comfytype
from comfy_execution.graph_utils import GraphBuilder


@comfytype(io_type="TYPED_DATA")
class Data(ComfyTypeIO):
    Type = dict


class Brighten(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TypedBrighten",
            display_name="Brighten",
            category="typed/image",
            description="Makes it brighter.",
            search_aliases=["light"],
            is_experimental=True,
            inputs=[
                io.Image.Input("image", tooltip="What to brighten."),
                io.Float.Input("factor", default=1.0, min=0.0, max=3.0, step=0.1, display_mode=io.NumberDisplay.slider),
                io.Combo.Input("mode", options=["add", "multiply"], default="multiply"),
                io.Mask.Input("mask", optional=True),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, advanced=True),
            ],
            outputs=[io.Image.Output("IMAGE"), io.Float.Output(display_name="mean", tooltip="How bright it is.")],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, image, factor, mode, seed, mask=None):
        bright = image * factor if mode == "multiply" else image + factor
        if mask is not None:
            bright = bright * mask.unsqueeze(-1)
        assert cls.hidden.unique_id and cls.hidden.api_key_comfy_org is None
        return io.NodeOutput(bright.clamp(0, 1), float(bright.mean()))

    @classmethod
    def validate_inputs(cls, factor, **kwargs):
        return "two and a half is too much" if factor == 2.5 else True

    @classmethod
    def fingerprint_inputs(cls, factor, **kwargs):
        return factor


class KeepsState(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TypedKeepsState", inputs=[], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls):
        cls.count = 1
        return io.NodeOutput(1)


class Batch(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        images = io.Autogrow.TemplatePrefix(input=io.Image.Input("image"), prefix="image_", min=1, max=4)
        return io.Schema(
            node_id="TypedBatch",
            inputs=[io.Autogrow.Input("images", template=images)],
            outputs=[io.Image.Output(), io.Int.Output()],
        )

    @classmethod
    def execute(cls, images: io.Autogrow.Type):
        return io.NodeOutput(torch.cat(list(images.values())), len(images))


class Combine(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TypedCombine",
            inputs=[
                io.DynamicCombo.Input(
                    "how",
                    options=[
                        io.DynamicCombo.Option("repeat", [io.Int.Input("times", default=2, min=1, max=9)]),
                        io.DynamicCombo.Option("join", [io.String.Input("between", default="-")]),
                    ],
                ),
                io.MultiType.Input(io.String.Input("text", default="x"), types=[io.Int, io.Float]),
            ],
            outputs=[io.String.Output("TEXT")],
        )

    @classmethod
    def execute(cls, how: io.DynamicCombo.Type, text):
        if how["how"] == "repeat":
            return io.NodeOutput(str(text) * how["times"])
        return io.NodeOutput(how["between"].join(str(text)))


class Choose(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        same = io.MatchType.Template("T")
        return io.Schema(
            node_id="TypedChoose",
            inputs=[
                io.Boolean.Input("choose_b", label_on="b", label_off="a"),
                io.MatchType.Input("a", template=same, lazy=True),
                io.MatchType.Input("b", template=same, lazy=True),
            ],
            outputs=[io.MatchType.Output(template=same, display_name="chosen")],
        )

    @classmethod
    def check_lazy_status(cls, choose_b, a=None, b=None):
        wanted = "b" if choose_b else "a"
        return [wanted] if (b if choose_b else a) is None else []

    @classmethod
    def execute(cls, choose_b, a=None, b=None):
        return io.NodeOutput(b if choose_b else a)


class Expand(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TypedExpand",
            enable_expand=True,
            inputs=[io.String.Input("text"), io.Int.Input("times", default=3)],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, text, times):
        graph = GraphBuilder()
        node = graph.node("TypedCombine", how="repeat", text=text)
        node.set_input("how.times", times)
        return io.NodeOutput(node.out(0), expand=graph.finalize())


class Gate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TypedGate",
            inputs=[io.Boolean.Input("open"), io.AnyType.Input("value")],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, open, value):
        return io.NodeOutput(value) if open else io.NodeOutput(block_execution="the gate is closed")


class Slow(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TypedSlow", inputs=[io.Int.Input("steps", default=3)], outputs=[Data.Output(), io.Int.Output()]
        )

    @classmethod
    async def execute(cls, steps):
        api = ComfyAPI()
        for step in range(steps):
            await api.execution.set_progress(step + 1, steps)
        return io.NodeOutput({"steps": steps}, steps)


class Show(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TypedShow",
            is_output_node=True,
            accept_all_inputs=True,
            inputs=[io.AnyType.Input("value")],
            outputs=[],
        )

    @classmethod
    def execute(cls, value, **more):
        ComfyAPISync().execution.set_progress(1, 1, preview_image=torch.zeros(1, 4, 6, 3))
        return io.NodeOutput(ui=ui.PreviewText(f"{value} {sorted(more.items())}"))


class Save(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TypedSave",
            is_output_node=True,
            inputs=[io.Image.Input("images"), io.String.Input("prefix", default="typed")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, images, prefix):
        ui.PreviewMask(images[..., 0], cls=cls)
        ui.ImageSaveHelper.get_save_animated_webp_ui(images, prefix, cls=cls, fps=10)
        return io.NodeOutput(ui=ui.ImageSaveHelper.get_save_images_ui(images, prefix, cls=cls))


class Broken(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TypedBroken", inputs=[io.Int.Input("a"), io.Int.Input("a")])


class TypedExtension(ComfyExtension):
    async def on_load(self):
        await ComfyAPI().node_replacement.register(
            io.NodeReplace(
                new_node_id="TypedBrighten",
                old_node_id="TypedBrightenOld",
                old_widget_ids=["amount"],
                input_mapping=[{"new_id": "image", "old_id": "image"}, {"new_id": "factor", "old_id": "amount"}],
                output_mapping=[{"new_idx": 0, "old_idx": 0}],
            )
        )

    async def get_node_list(self):
        return [Brighten, KeepsState, Batch, Combine, Choose, Expand, Gate, Slow, Show, Save, Broken]


async def comfy_entrypoint():
    return TypedExtension()
