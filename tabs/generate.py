"""The Generate tab: a form whose button submits a graph. It knows the graph only through engine.workflows."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import gradio as gr

from engine.errors import EaselError, InvalidSetting
from engine.families.base import Defaults, Detected
from engine.families.discover import detect
from engine.graph.metadata import read_metadata
from engine.sampling.names import SAMPLERS, SCHEDULERS
from engine.weights.header import read_header
from engine.workflows import LoraChoice, PictureSettings, settings_of, text_to_image
from engine.workspace import inside
from tabs.app import App, refuse
from tabs.forms import keep
from tabs.live import part
from tabs.shell import Pages
from tabs.words import T

DEMO_MODEL = "easel-demo.safetensors"
DEMO_PROMPT = "a large happy red star on a blue background"
LARGEST_SEED = 2**64 - 1


def build(app: App, pages: Pages) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            fields = _form(app)
            go = gr.Button(T("generate.go"), variant="primary", elem_id="generate-go")
        with gr.Column(scale=3, min_width=320):
            result = part("easel-result", kinds="generate")
    pages.inputs |= {f"generate.{name}": component for name, component in fields.items()}
    keep(app, pages.page, "generate", fields)
    names = list(fields)

    def generate(request: gr.Request, *values: Any) -> None:
        try:
            submit(app, dict(zip(names, values, strict=True)), request.username or "")
        except EaselError as error:
            raise refuse(error, request) from error

    def send(event: gr.EventData, request: gr.Request) -> list[Any]:
        try:
            return [*fill(app, names, event._data), gr.Tabs(selected="generate")]
        except EaselError as error:
            raise refuse(error, request) from error

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    go.click(generate, list(fields.values()), None, **quiet)
    fields["positive"].submit(generate, list(fields.values()), None, **quiet)
    sized = ("width", "height", "steps", "cfg", "sampler_name", "scheduler")
    fields["ckpt_name"].input(
        lambda name: _defaults(app, name, sized), fields["ckpt_name"], [fields[n] for n in sized], **quiet
    )
    pages.page.load(lambda: _choices(app), None, [fields["ckpt_name"], fields["lora_name"]], **quiet)
    pages.bar.select(lambda: _choices(app), None, [fields["ckpt_name"], fields["lora_name"]], **quiet)
    pages.receive(lambda source: source.select(send, None, [*fields.values(), pages.bar], **quiet))
    pages.offer(result)


def submit(app: App, form: dict[str, Any], user: str = "") -> str:
    """Queue what the form says; returns the job's id. Raises InvalidSetting, or GraphError for a refused graph."""
    settings = picture_settings(app, form)
    prompt = text_to_image(settings)
    spec = {"prompt": prompt, "draft": bool(form.get("draft"))}
    return app.submit("generate", spec, title=settings.positive[:80], user=user).id


def picture_settings(app: App, form: dict[str, Any]) -> PictureSettings:
    """The form's values as settings. Width and height are pixels of the picture: a VAE of another factor than 8 is
    reckoned with here, because EmptyLatentImage always divides by 8."""
    factor = _factor(app, form["ckpt_name"])
    lora = form.get("lora_name") or ""
    strength = float(form.get("lora_strength") or 0)
    return PictureSettings(
        ckpt_name=form["ckpt_name"],
        positive=form["positive"] or "",
        negative=form["negative"] or "",
        width=int(form["width"]) * 8 // factor,
        height=int(form["height"]) * 8 // factor,
        batch_size=int(form["batch_size"]),
        seed=_seed(form["seed"]),
        steps=int(form["steps"]),
        cfg=float(form["cfg"]),
        sampler_name=form["sampler_name"],
        scheduler=form["scheduler"],
        denoise=float(form["denoise"]) if form.get("image") else 1.0,
        loras=(LoraChoice(lora, strength, strength),) if lora else (),
        image=form.get("image") or "",
    )


def fill(app: App, names: list[str], sent: dict[str, Any]) -> list[Any]:
    """New values of the form's fields for a picture sent here: as start picture, or with its settings restored."""
    folder = {"input": app.workspace.input, "temp": app.workspace.temp}.get(sent.get("type", ""), app.workspace.output)
    path = inside(folder, f"{sent.get('subfolder', '')}/{sent['filename']}".lstrip("/"))
    if sent["to"] == "send.img2img":
        copy = app.workspace.input / path.name
        if path != copy:
            copy.write_bytes(path.read_bytes())
        return [copy.name if name == "image" else gr.skip() for name in names]
    settings = settings_of(read_metadata(path).prompt or {})
    if settings is None:
        raise InvalidSetting(
            where=path.name, name="prompt", value="", reason="the picture carries no graph of this form"
        )
    values = asdict(settings) | {"seed": str(settings.seed)}
    factor = _factor(app, settings.ckpt_name)
    values |= {"width": settings.width * factor // 8, "height": settings.height * factor // 8}
    lora = settings.loras[0] if settings.loras else LoraChoice("", 1.0)
    values |= {"lora_name": lora.name, "lora_strength": lora.strength_model}
    return [values.get(name, gr.skip()) for name in names]


def model_info(app: App, name: str) -> Detected | None:
    """What a checkpoint is by its header; None for a family not known here."""
    return detect(read_header(app.workspace.model_path("checkpoints", name)))


def _factor(app: App, name: str) -> int:
    found = model_info(app, name)
    return found.factor if found else 8


def _form(app: App) -> dict[str, Any]:
    checkpoints, _ = _lists(app)
    first = DEMO_MODEL if DEMO_MODEL in checkpoints else next(iter(checkpoints), None)
    found = model_info(app, first) if first else None
    start = found.defaults if found else Defaults()
    fields: dict[str, Any] = {}
    fields["positive"] = gr.Textbox(
        DEMO_PROMPT if first == DEMO_MODEL else "", label=T("generate.prompt"), info=T("generate.prompt_hint"), lines=3,
        max_lines=8, submit_btn=False, elem_id="generate-prompt",
    )  # fmt: skip
    fields["negative"] = gr.Textbox("", label=T("generate.negative"), lines=1, max_lines=6)
    fields["ckpt_name"] = gr.Dropdown(checkpoints, value=first, label=T("generate.model"), elem_id="generate-model")
    with gr.Row():
        fields["lora_name"] = gr.Dropdown(
            [(T("generate.none"), "")], value="", label=T("generate.lora"), scale=2, elem_id="generate-lora"
        )
        fields["lora_strength"] = gr.Slider(-2, 2, 1.0, step=0.05, label=T("generate.lora_strength"), scale=2)
    with gr.Row():
        fields["width"] = gr.Slider(64, 2048, start.width, step=8, label=T("generate.width"))
        fields["height"] = gr.Slider(64, 2048, start.height, step=8, label=T("generate.height"))
    with gr.Row():
        fields["seed"] = gr.Textbox(
            "-1", label=T("generate.seed"), info=T("generate.seed_hint"), max_lines=1, elem_id="generate-seed"
        )
        fields["batch_size"] = gr.Slider(1, 16, 1, step=1, label=T("generate.batch"))
    with gr.Accordion(T("generate.more"), open=False):
        with gr.Row():
            fields["steps"] = gr.Slider(1, 150, start.steps, step=1, label=T("generate.steps"))
            fields["cfg"] = gr.Slider(1, 30, start.cfg, step=0.1, label=T("generate.cfg"), info=T("generate.cfg_hint"))
        with gr.Row():
            fields["sampler_name"] = gr.Dropdown(list(SAMPLERS), value=start.sampler_name, label=T("generate.sampler"))
            fields["scheduler"] = gr.Dropdown(list(SCHEDULERS), value=start.scheduler, label=T("generate.scheduler"))
        fields["draft"] = gr.Checkbox(False, label=T("generate.draft"), info=T("generate.draft_hint"))
        with gr.Row():
            fields["image"] = gr.Dropdown(_inputs(app), value="", label=T("generate.start"), allow_custom_value=True)
            fields["denoise"] = gr.Slider(0.05, 1, 0.6, step=0.05, label=T("generate.denoise"))
    return fields


def _choices(app: App) -> list[Any]:
    checkpoints, loras = _lists(app)
    return [gr.update(choices=checkpoints), gr.update(choices=[(T("generate.none"), ""), *((n, n) for n in loras)])]


def _lists(app: App) -> tuple[list[str], list[str]]:
    return app.workspace.list_models("checkpoints"), app.workspace.list_models("loras")


def _inputs(app: App) -> list[str]:
    return ["", *sorted(p.name for p in app.workspace.input.glob("*.*"))]


def _defaults(app: App, name: str, fields: tuple[str, ...]) -> list[Any]:
    found = model_info(app, name)
    return [getattr(found.defaults, field) if found else gr.skip() for field in fields]


def _seed(text: str) -> int:
    try:
        seed = int(str(text).strip() or -1)
    except ValueError:
        seed = -2
    if not -1 <= seed <= LARGEST_SEED:
        raise InvalidSetting(
            where="Generate", name="seed", value=text, reason=f"a seed is a whole number from -1 to {LARGEST_SEED}"
        )
    return random.getrandbits(48) if seed == -1 else seed
