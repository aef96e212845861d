"""The Train tab's form: what it refuses, what it calls a run, what it fills in by itself."""

from __future__ import annotations

from typing import Any

import pytest

from engine.dataset.library import Library
from engine.errors import SettingsError
from studio.app import App
from studio.demo.dataset import make_demo_dataset
from tabs.fields import shown
from tabs.train import NoLoraYet, NoSuchDataset, NothingChosen, _choices, free_name, newest_lora, submit, trigger_of
from trainers.settings import TrainSettings

FORM: dict[str, Any] = {name: shown(field.default) for name, field in TrainSettings.model_fields.items()}
FORM |= {"model": "easel-demo.safetensors", "dataset": "bbdr", "trigger_word": "bbdr", "steps": 3}


@pytest.fixture(autouse=True)
def demo(app: App) -> None:
    make_demo_dataset(Library(app.workspace)).close()


def test_a_run_is_named_after_its_trigger_word_and_never_twice(app: App) -> None:
    names = [app.jobs.get(submit(app, FORM)).settings["name"] for _ in range(2)]
    assert names == ["bbdr", "bbdr-2"]


def test_a_run_never_takes_the_folder_of_an_old_one(app: App) -> None:
    (app.workspace.runs / "fox").mkdir(parents=True)
    assert free_name(app, "fox") == "fox-2"
    assert free_name(app, "some/folder/fox/") == "fox-2"


def test_model_and_dataset_must_be_chosen_and_there(app: App) -> None:
    with pytest.raises(NothingChosen, match="Choose a base model first"):
        submit(app, FORM | {"model": None})
    with pytest.raises(NothingChosen, match="Choose a dataset first"):
        submit(app, FORM | {"dataset": ""})
    with pytest.raises(NoSuchDataset, match="'/nowhere/at/all' is neither"):
        submit(app, FORM | {"dataset": "/nowhere/at/all"})


def test_a_wrong_number_is_refused_in_both_languages(app: App) -> None:
    with pytest.raises(SettingsError) as refused:
        submit(app, FORM | {"steps": -5})
    assert refused.value.text("en") == "train: 'steps' is -5, but input should be greater than or equal to 1."
    assert refused.value.text("zh") == "train：“steps”的值为 -5，但应不小于 1。"
    assert app.jobs.list(kinds=["train"]) == []


def test_an_empty_form_is_filled_with_the_likeliest_and_a_draft_is_left_alone(app: App) -> None:
    model, dataset, trigger = _choices(app)
    assert (model["value"], dataset["value"], trigger["value"]) == ("easel-demo.safetensors", "bbdr", "bbdr")
    app.drafts.put("train", {"model": "mine.safetensors", "dataset": "/pictures", "trigger_word": "sks"})
    model, dataset, trigger = _choices(app)
    assert "value" not in model and "value" not in dataset and "value" not in trigger


def test_the_trigger_word_is_the_datasets(app: App) -> None:
    assert trigger_of(app, "bbdr") == "bbdr"
    assert trigger_of(app, "not there") == ""


def test_without_a_finished_training_there_is_no_lora_to_use(app: App) -> None:
    with pytest.raises(NoLoraYet):
        newest_lora(app)
