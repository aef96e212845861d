"""The Train tab: a form made from TrainSettings, presets over it, and the run as it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from engine.dataset.export import rules_of
from engine.dataset.library import Library
from engine.errors import EaselError, InputError
from tabs.app import App, refuse
from tabs.fields import component, is_basic, section_of, shown, taken
from tabs.forms import keep
from tabs.generate import DEMO_MODEL, lora_choices
from tabs.live import part
from tabs.shell import Pages
from tabs.words import T
from trainers.presets import Preset, presets
from trainers.settings import SECTIONS, TrainSettings

FIELDS = TrainSettings.model_fields
DEMO_PRESET = "demo-bbdr"
KEPT = ("name", "model", "dataset", "trigger_word")  # a preset says how to train, not what


class NothingChosen(InputError):
    en = "Choose a {what_en} first."
    zh = "请先选择{what_zh}。"


class NoSuchDataset(InputError):
    en = "'{name}' is neither a dataset here nor a folder of pictures on the studio's machine."
    zh = "“{name}”既不是这里的数据集，也不是工作室所在机器上的图片文件夹。"


class NoLoraYet(InputError):
    en = "No training has finished yet. Train a LoRA first."
    zh = "还没有完成的训练。请先训练一个 LoRA。"


def build(app: App, pages: Pages) -> None:
    found = {preset.name: preset for preset in presets()}
    with gr.Row(elem_classes=["ez-train"]):
        with gr.Column(scale=2, min_width=300, elem_id="train-form", elem_classes=["ez-form"]):
            named = [(T(f"train.preset.{name}"), name) for name in found]
            first = _first_preset(app, found)
            preset = gr.Dropdown(named, value=first, label=T("train.preset"), elem_id="train-preset")
            part("easel-search", target="#train-form")
            fields = _form(app, found[first].settings if first else {})
            start = gr.Button(T("train.start"), variant="primary", elem_id="train-start")
        with gr.Column(scale=3, min_width=300, elem_classes=["run"]):
            part("easel-job", kinds="train")
            use = gr.Button(T("train.use"), elem_id="train-use", size="md")
            part("easel-curve")
            part("easel-samples")
    keep(app, pages.page, "train", fields)
    names = list(fields)

    def begin(request: gr.Request, *values: Any) -> None:
        try:
            submit(app, dict(zip(names, values, strict=True)), request.username or "")
        except EaselError as error:
            raise refuse(error, request) from error

    def apply(name: str) -> list[Any]:
        chosen = {field: shown(FIELDS[field].default) for field in names if field not in KEPT} | {
            field: shown(value) for field, value in found[name].settings.items()
        }
        return [chosen.get(field, gr.skip()) for field in names]

    def use_lora(request: gr.Request) -> list[Any]:
        try:
            lora, trigger, model = newest_lora(app)
        except EaselError as error:
            raise refuse(error, request) from error
        listed = lora_choices(app.workspace.list_models("loras"))
        words = f"{trigger}, " if trigger else gr.skip()
        return [gr.update(choices=listed, value=lora), words, model, "", gr.Tabs(selected="generate")]

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    components = list(fields.values())
    to_run = "() => document.querySelector('.ez-train .run').scrollIntoView({block: 'nearest', behavior: 'smooth'})"
    start.click(begin, components, None, **quiet).success(None, None, None, js=to_run)

    def tried(event: gr.EventData) -> list[Any]:
        """Settings that somebody tried out on a dataset."""
        if event._data.get("name") != "train":
            return [gr.skip() for _ in names] + [gr.skip()]
        chosen = {name: shown(value) for name, value in event._data["settings"].items() if name in FIELDS}
        return [chosen.get(name, gr.skip()) for name in names] + [gr.Tabs(selected="train")]

    pages.inputs["dataset.part"].select(tried, None, [*components, pages.bar], **quiet)  # type: ignore[attr-defined]
    preset.input(apply, preset, components, **quiet)
    what = [fields["model"], fields["dataset"], fields["trigger_word"]]
    pages.page.load(lambda: _choices(app), None, what, **quiet)
    pages.bar.select(lambda: _choices(app), None, what, **quiet)
    dataset: Any = fields["dataset"]  # its events are added when the class is made
    dataset.input(lambda name: trigger_of(app, name) or gr.skip(), dataset, what[2:], **quiet)
    target = [pages.inputs[f"generate.{name}"] for name in ("lora_name", "positive", "ckpt_name", "image")]
    use.click(use_lora, None, [*target, pages.bar], **quiet)


def submit(app: App, form: dict[str, Any], user: str = "") -> str:
    """Queue a training with what the form says; returns the job's id. Raises InputError."""
    if not form["model"]:
        raise NothingChosen(what_en="base model", what_zh="基础模型")
    if not form["dataset"]:
        raise NothingChosen(what_en="dataset", what_zh="数据集")
    if form["dataset"] not in Library(app.workspace).names() and not Path(form["dataset"]).expanduser().is_dir():
        raise NoSuchDataset(name=form["dataset"])
    settings = {name: taken(FIELDS[name], value) for name, value in form.items()}
    settings["name"] = free_name(app, settings["name"] or settings["trigger_word"] or settings["dataset"] or "lora")
    return app.submit("train", settings, title=settings["name"], user=user).id


def told(app: App) -> dict[str, Any]:
    """What the form says now, as settings: what was typed, else the preset that it starts with."""
    found = {preset.name: preset for preset in presets()}
    first = _first_preset(app, found)
    start = dict(found[first].settings) if first else {}
    draft = app.drafts.get("train")
    return start | {name: taken(FIELDS[name], value) for name, value in draft.items() if name in FIELDS}


def free_name(app: App, name: str) -> str:
    """`name`, or `name-2` ... where a run has it already: a new training never writes into an old one's folder."""
    name = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    taken_names = {path.name for path in app.workspace.runs.glob("*")}
    taken_names |= {
        job.settings.get("name") for job in app.jobs.list(kinds=["train"], limit=1000) if not job.state.ended
    }
    number = 1
    while (candidate := name if number == 1 else f"{name}-{number}") in taken_names:
        number += 1
    return candidate


def newest_lora(app: App) -> tuple[str, str, str]:
    """File, trigger word and base model of the newest finished training. Raises NoLoraYet."""
    for job in app.jobs.list(states=["done"], kinds=["train"], limit=1):
        result = job.result or {}
        return result["lora"], result["trigger_word"], result["model"]
    raise NoLoraYet()


def trigger_of(app: App, dataset: str) -> str:
    """The trigger word of a dataset's caption rules; "" where there is none, or no such dataset."""
    if dataset not in Library(app.workspace).names():
        return ""
    with Library(app.workspace).open(dataset) as opened:
        return rules_of(opened).trigger_word


def _first_preset(app: App, found: dict[str, Preset]) -> str | None:
    """The demo's where its model stands in the form: one click trains."""
    demo = DEMO_MODEL in app.workspace.list_models("checkpoints")
    return DEMO_PRESET if demo and DEMO_PRESET in found else None


def _form(app: App, start: dict[str, Any]) -> dict[str, Component]:
    choices = {"model": app.workspace.list_models("checkpoints"), "dataset": Library(app.workspace).names()}
    fields: dict[str, Component] = {}
    for section in SECTIONS:
        names = [name for name, field in FIELDS.items() if section_of(field) == section]
        advanced = not any(is_basic(FIELDS[name]) for name in names)
        hidden = ["ez-advanced"] if advanced else []
        gr.Markdown(T(f"train.section.{section}"), elem_classes=["ez-section", *hidden])
        for name in names:
            options: dict[str, Any] = {"choices": choices[name]} if name in choices else {}
            options |= {"value": start[name]} if name in start else {}
            fields[name] = component(
                name, FIELDS[name], T(f"train.{name}"), T(f"train.{name}.help"), elem_id=f"train-{name}", **options
            )
    return fields


def _choices(app: App) -> list[Any]:
    """Models and datasets as they are now; what is not chosen yet is filled with the likeliest."""
    draft = app.drafts.get("train")
    models, datasets = app.workspace.list_models("checkpoints"), Library(app.workspace).names()
    chosen: dict[str, Any] = {}
    if not draft.get("model") and models:
        chosen["model"] = DEMO_MODEL if DEMO_MODEL in models else models[0]
    if not draft.get("dataset") and datasets:
        seen = app.drafts.get("dataset").get("current", "")
        chosen["dataset"] = seen if seen in datasets else datasets[0]
    dataset = chosen.get("dataset") or draft.get("dataset", "")
    if not draft.get("trigger_word") and (trigger := trigger_of(app, dataset)):
        chosen["trigger_word"] = trigger
    values = {name: {"value": value} for name, value in chosen.items()}
    return [
        gr.update(choices=models, **values.get("model", {})),
        gr.update(choices=datasets, **values.get("dataset", {})),
        gr.update(**values["trigger_word"]) if "trigger_word" in values else gr.skip(),
    ]
