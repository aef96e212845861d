from pathlib import Path

import pytest

from engine.errors import InvalidSetting, UnknownSetting
from trainers.presets import PRESETS, presets, read_preset, read_settings
from trainers.settings import SECTION_TITLES, SECTIONS, BucketRange, Contradiction, NothingToTrain, TrainSettings


def test_every_setting_has_words_in_both_languages_and_a_place_in_the_form():
    for name, field in TrainSettings.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), name
        assert field.title and field.description and extra["title_zh"] and extra["help_zh"], name
        assert extra["section"] in SECTIONS and extra["group"] in ("basic", "advanced"), name
    assert set(SECTION_TITLES) == set(SECTIONS)


def test_settings_written_as_toml_read_back_equal(tmp_path):
    settings = TrainSettings(name="a 角色", sample_prompts=('one\n"two" \\', "\x7f"), learning_rate=3e-5, flip=True)
    file = tmp_path / "config.toml"
    file.write_text(settings.to_toml(), encoding="utf-8")
    assert read_settings(file) == settings


def test_every_preset_validates():
    found = [read_preset(path) for path in PRESETS.glob("*.toml")]
    assert {p.name for p in found} >= {"sd1-character", "sd1-style", "demo-bbdr"}
    for preset in found:
        assert preset.title and preset.title_zh != preset.title
        TrainSettings(**preset.settings)


def test_a_mistyped_key_is_refused_with_the_nearest_name(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("learning_rat = 1e-4\n")
    for read in (read_preset, read_settings):
        with pytest.raises(UnknownSetting) as error:
            read(file)
        assert error.value.text() == "There is no setting 'learning_rat' in mine.toml. Did you mean 'learning_rate'?"
        assert "learning_rate" in error.value.text("zh")


def test_a_file_may_stand_on_a_preset(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('preset = "sd1-style"\nsteps = 7\n')
    settings = read_settings(file)
    assert settings.steps == 7
    assert settings.rank == read_preset(PRESETS / "sd1-style.toml").settings["rank"]


def test_a_value_out_of_range_names_the_setting(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("rank = 0\n")
    with pytest.raises(InvalidSetting) as error:
        read_settings(file)
    assert error.value.values["name"] == "rank" and error.value.values["value"] == 0


def test_a_text_cache_is_refused_while_the_text_encoder_trains_or_captions_vary():
    for other in ("train_text_encoder", "shuffle_caption"):
        with pytest.raises(Contradiction, match=other):
            TrainSettings(cache_text="on", **{other: True})
        assert not TrainSettings(cache_text="auto", **{other: True}).caches_text
    assert TrainSettings(cache_text="auto").caches_text


def test_nothing_to_train_is_refused():
    with pytest.raises(NothingToTrain):
        TrainSettings(linear=False)


def test_bucket_sides_must_enclose_the_resolution():
    with pytest.raises(BucketRange, match="min_bucket 600"):
        TrainSettings(min_bucket=600)
    assert TrainSettings(resolution=512).bucket_range == (256, 1024)


def test_a_preset_that_cannot_be_read_is_left_out_of_the_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "good.toml").write_text("rank = 4\n")
    (tmp_path / "mistyped.toml").write_text("rnak = 4\n")
    (tmp_path / "broken.toml").write_text("rank = 4\nrank = 5\n")
    assert [preset.name for preset in presets(tmp_path)] == ["good"]
    assert "Did you mean 'rank'?" in caplog.text and "broken.toml" in caplog.text
