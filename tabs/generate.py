"""The Generate tab: a form whose button submits a graph. It knows the graph only through engine.workflows."""

from __future__ import annotations

import random
from textwrap import shorten
from typing import Any

import gradio as gr

from engine.errors import EaselError, InputError
from engine.families.base import Defaults, Detected
from engine.sampling.names import SAMPLERS, SCHEDULERS
from engine.workflows import LoraChoice, PictureSettings, text_to_image
from tabs import workbench
from tabs.app import App, refuse
from tabs.forms import keep
from tabs.live import field, part
from tabs.restoring import SIZED, factor_of, fill, model_info, of_text
from tabs.shell import Pages
from tabs.words import T

DEMO_MODEL = "easel-demo.safetensors"
DEMO_PROMPT = "a large happy red star on a blue background"
LARGEST_SEED = 2**64 - 1
RECEIVED = ("send.img2img", "send.restore")


class BadSeed(InputError):
    en = "The seed '{value}' can't be used. It is a whole number from 0 to {largest}, or -1 for a new one each time."
    zh = "不能使用种子“{value}”。请填写 0 到 {largest} 之间的整数，或填 -1 以每次随机。"


class NoNumber(InputError):
    en = "'{name}' is empty. Write a number."
    zh = "“{name}”为空。请填写数字。"


class NoModel(InputError):
    en = "No model is chosen. Put a checkpoint into models/checkpoints, or choose one that is there."
    zh = "没有选择模型。请将检查点放入 models/checkpoints，或选择已有的模型。"


def build(app: App, pages: Pages) -> None:
    with gr.Row(elem_classes=["ez-generate"]):
        with gr.Column(elem_classes=["ask"], min_width=300):
            fields, start = _prompt_fields(app), _start(app)
            with gr.Row():
                go = gr.Button(T("generate.go"), variant="primary", elem_id="generate-go", scale=3, min_width=120)
                graph = gr.Button(T("generate.graph"), elem_id="generate-graph", scale=1, min_width=170)
            taken = part("easel-take", of="tab-generate")
        with gr.Column(elem_classes=["see"], min_width=300):
            result = part("easel-result", kinds="generate")
        with gr.Column(elem_classes=["set"], min_width=300):
            fields |= _setting_fields(app, start)
    pages.inputs |= {f"generate.{name}": component for name, component in fields.items()}
    keep(app, pages.page, "generate", fields)
    names = list(fields)

    def generate(request: gr.Request, *values: Any) -> None:
        try:
            submit(app, dict(zip(names, values, strict=True)), request.username or "")
        except EaselError as error:
            raise refuse(error, request) from error

    def send(event: gr.EventData, request: gr.Request) -> list[Any]:
        sent = event._data
        try:
            if sent.get("name") == "text":
                values = of_text(app, str(sent.get("text", "")))
                return [*(values.get(name, gr.skip()) for name in names), gr.skip()]
            if sent.get("name") == "send" and sent.get("to") in RECEIVED:
                return [*fill(app, names, sent), gr.Tabs(selected="generate")]
        except EaselError as error:
            raise refuse(error, request) from error
        return [gr.skip()] * (len(names) + 1)

    def open_graph(request: gr.Request, *values: Any) -> Any:
        try:
            settings = picture_settings(app, dict(zip(names, values, strict=True)))
            workbench.open_document(app, text_to_image(settings), _title(settings.positive))
        except EaselError as error:
            raise refuse(error, request) from error
        return gr.Tabs(selected="workflow")

    def defaults(name: str, request: gr.Request) -> list[Any]:
        try:
            found = model_info(app, name)
        except EaselError as error:
            raise refuse(error, request) from error
        told = gr.update(info=T("generate.distilled") if found and found.distilled else None)
        return [told, *(getattr(found.defaults, wanted) if found else gr.skip() for wanted in SIZED)]

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    go.click(generate, list(fields.values()), None, **quiet)
    graph.click(open_graph, list(fields.values()), pages.bar, **quiet)
    fields["positive"].submit(generate, list(fields.values()), None, **quiet)
    fields["ckpt_name"].input(defaults, fields["ckpt_name"], [fields[name] for name in ("ckpt_name", *SIZED)], **quiet)
    lists = [fields["ckpt_name"], fields["lora_name"]]
    pages.page.load(lambda: choices(app), None, lists, **quiet)
    pages.bar.select(lambda: choices(app), None, lists, **quiet)
    pages.receive(lambda source: source.select(send, None, [*fields.values(), pages.bar], **quiet))
    pages.offer(result)
    pages.offer(taken)


def submit(app: App, form: dict[str, Any], user: str = "") -> str:
    """Queue what the form says; returns the job's id. Raises InputError, or GraphError for a refused graph."""
    settings = picture_settings(app, form)
    title = settings.positive.strip()[:80]
    job, _ = app.submit_prompt(text_to_image(settings), draft=bool(form.get("draft")), title=title, user=user)
    return job.id


def picture_settings(app: App, form: dict[str, Any]) -> PictureSettings:
    """The form's values as settings. Width and height are pixels of the picture: a VAE of another factor than 8 is
    reckoned with here, because EmptyLatentImage always divides by 8."""
    if not form["ckpt_name"]:
        raise NoModel()
    factor = factor_of(app, form["ckpt_name"])
    lora = form.get("lora_name") or ""
    strength = _number(form, "lora_strength") if lora else 0.0
    return PictureSettings(
        ckpt_name=form["ckpt_name"],
        positive=form["positive"] or "",
        negative=form["negative"] or "",
        width=int(_number(form, "width")) * 8 // factor,
        height=int(_number(form, "height")) * 8 // factor,
        batch_size=int(_number(form, "batch_size")),
        seed=_seed(form["seed"]),
        steps=int(_number(form, "steps")),
        cfg=_number(form, "cfg"),
        sampler_name=form["sampler_name"] or "",
        scheduler=form["scheduler"] or "",
        denoise=_number(form, "denoise") if form.get("image") else 1.0,
        loras=(LoraChoice(lora, strength, strength),) if lora else (),
        image=form.get("image") or "",
    )


def choices(app: App) -> list[Any]:
    """Checkpoints and LoRAs as they are on the disk now."""
    checkpoints, loras = app.workspace.list_models("checkpoints"), app.workspace.list_models("loras")
    return [gr.update(choices=checkpoints), gr.update(choices=lora_choices(loras))]


def lora_choices(loras: list[str]) -> list[tuple[Any, str]]:
    return [(T("generate.none"), ""), *((name, name) for name in loras)]


def _prompt_fields(app: App) -> dict[str, Any]:
    first, _ = _first_model(app)
    return {
        "positive": gr.Textbox(
            DEMO_PROMPT if first == DEMO_MODEL else "", label=T("generate.prompt"), info=T("generate.prompt_hint"),
            lines=3, max_lines=8, submit_btn=False, elem_id="generate-prompt",
        ),
        "negative": gr.Textbox("", label=T("generate.negative"), lines=1, max_lines=6, elem_id="generate-negative"),
    }  # fmt: skip


def _setting_fields(app: App, start: Defaults) -> dict[str, Any]:
    first, found = _first_model(app)
    checkpoints = app.workspace.list_models("checkpoints")
    free: dict[str, Any] = {"allow_custom_value": True}  # what is not there is refused with words when it is used
    fields: dict[str, Any] = {}
    fields["ckpt_name"] = gr.Dropdown(
        checkpoints, value=first, label=T("generate.model"), elem_id="generate-model",
        info=T("generate.distilled") if found and found.distilled else None, **free,
    )  # fmt: skip
    with gr.Row():
        fields["lora_name"] = gr.Dropdown(
            lora_choices([]), value="", label=T("generate.lora"), scale=2, elem_id="generate-lora", **free
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
    with gr.Row():
        fields["image"] = field("easel-start", "file", elem_id="generate-start")
        fields["denoise"] = gr.Slider(0.05, 1, 0.6, step=0.05, label=T("generate.denoise"))
    with gr.Accordion(T("generate.more"), open=False):
        with gr.Row():
            fields["steps"] = gr.Slider(1, 150, start.steps, step=1, label=T("generate.steps"))
            fields["cfg"] = gr.Slider(1, 30, start.cfg, step=0.1, label=T("generate.cfg"), info=T("generate.cfg_hint"))
        with gr.Row():
            fields["sampler_name"] = gr.Dropdown(list(SAMPLERS), value=start.sampler_name, label=T("generate.sampler"))
            fields["scheduler"] = gr.Dropdown(list(SCHEDULERS), value=start.scheduler, label=T("generate.scheduler"))
        fields["draft"] = gr.Checkbox(False, label=T("generate.draft"), info=T("generate.draft_hint"))
    return fields


def _title(prompt: str) -> str:
    """The first words of a prompt; letters of it where it has no spaces."""
    return shorten(prompt, 40, placeholder="") or prompt.strip()[:40]


def _first_model(app: App) -> tuple[str | None, Detected | None]:
    """The model that the form starts with: the demo's, else the first that can be read. A broken one is not."""
    listed = app.workspace.list_models("checkpoints")
    broken: str | None = None
    for name in sorted(listed, key=lambda name: name != DEMO_MODEL):
        try:
            return name, model_info(app, name)
        except EaselError:
            broken = broken or name
    return broken, None


def _start(app: App) -> Defaults:
    _, found = _first_model(app)
    return found.defaults if found else Defaults()


def _number(form: dict[str, Any], name: str) -> float:
    if form[name] is None or form[name] == "":
        raise NoNumber(name=name)
    return float(form[name])


def _seed(text: Any) -> int:
    try:
        seed = int(str("" if text is None else text).strip() or -1)
    except ValueError:
        seed = -2
    if not -1 <= seed <= LARGEST_SEED:
        raise BadSeed(value=text, largest=LARGEST_SEED)
    return random.getrandbits(48) if seed == -1 else seed
