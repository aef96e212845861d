"""The Train tab: a form made from TrainSettings, presets over it, and the run as it goes."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from engine.dataset.library import Library
from engine.errors import EaselError, NotFound
from tabs.app import App, refuse
from tabs.fields import component, is_basic, section_of, shown, taken
from tabs.forms import keep
from tabs.live import part
from tabs.shell import Pages
from tabs.words import T
from trainers.settings import SECTIONS, TrainSettings, presets

FIELDS = TrainSettings.model_fields


def build(app: App, pages: Pages) -> None:
    found = {preset.name: preset for preset in presets()}
    with gr.Row():
        with gr.Column(scale=2, min_width=320, elem_id="train-form", elem_classes=["ez-form"]):
            named = [(T(f"train.preset.{name}"), name) for name in found]
            preset = gr.Dropdown(
                named,
                value=None,
                label=T("train.preset"),
                elem_id="train-preset",
            )
            part("easel-search", target="#train-form")
            fields = _form(app)
            start = gr.Button(T("train.start"), variant="primary", elem_id="train-start")
        with gr.Column(scale=3, min_width=320):
            part("easel-job", kinds="train")
            part("easel-curve")
            part("easel-samples")
            use = gr.Button(T("train.use"), elem_id="train-use")
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
        return [gr.update(value=lora), f"{trigger}, " if trigger else "", model, gr.Tabs(selected="generate")]

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    components = list(fields.values())
    start.click(begin, components, None, **quiet)
    preset.input(apply, preset, components, **quiet)
    lists = [fields["model"], fields["dataset"]]
    pages.page.load(lambda: _choices(app), None, lists, **quiet)
    pages.bar.select(lambda: _choices(app), None, lists, **quiet)
    target = [pages.inputs[f"generate.{name}"] for name in ("lora_name", "positive", "ckpt_name")]
    use.click(use_lora, None, [*target, pages.bar], **quiet)


KEPT = ("name", "model", "dataset", "trigger_word")  # a preset says how to train, not what


def submit(app: App, form: dict[str, Any], user: str = "") -> str:
    """Queue a training with what the form says; returns the job's id. Raises SettingsError."""
    settings = {name: taken(FIELDS[name], value) for name, value in form.items()}
    settings["name"] = free_name(app, settings["name"] or settings["trigger_word"] or settings["dataset"] or "lora")
    return app.submit("train", settings, title=settings["name"], user=user).id


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
    """File, trigger word and base model of the newest finished training. Raises NotFound."""
    for job in app.jobs.list(states=["done"], kinds=["train"], limit=1):
        settings = job.settings
        return f"{settings['name']}.safetensors", settings["trigger_word"], settings["model"]
    raise NotFound(what="finished training", name="LoRA", remedy="Train one first.")


def _form(app: App) -> dict[str, Component]:
    choices = {"model": app.workspace.list_models("checkpoints"), "dataset": Library(app.workspace).names()}
    fields: dict[str, Component] = {}
    for section in SECTIONS:
        names = [name for name, field in FIELDS.items() if section_of(field) == section]
        advanced = not any(is_basic(FIELDS[name]) for name in names)
        hidden = ["ez-advanced"] if advanced else []
        gr.Markdown(T(f"train.section.{section}"), elem_classes=["ez-section", *hidden])
        for name in names:
            options = {"choices": choices[name]} if name in choices else {}
            fields[name] = component(
                name, FIELDS[name], T(f"train.{name}"), T(f"train.{name}.help"), elem_id=f"train-{name}", **options
            )
    return fields


def _choices(app: App) -> list[Any]:
    return [
        gr.update(choices=app.workspace.list_models("checkpoints")),
        gr.update(choices=Library(app.workspace).names()),
    ]
