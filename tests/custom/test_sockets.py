"""Socket types of V3 schemas: each has its name, takes its options in order, and tells an editor of them."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Any

import pytest

from tests.custom.conftest import Packs


@pytest.fixture
def io(packs: Packs) -> Any:
    return sys.modules["comfy_api.latest.io"]


def test_every_type_has_its_name_for_inputs_and_outputs(io: Any) -> None:
    types = {"Int": "INT", "MultiCombo": "COMBO", "ControlNet": "CONTROL_NET", "AnyType": "*", "BBOX": "BBOX"}
    for name, io_type in types.items():
        kind = getattr(io, name)
        assert (kind.io_type, kind.Input("a").get_io_type(), kind.Output().get_io_type()) == (io_type,) * 3, name
    assert len(set(io.sockets.NAMES)) == len(io.sockets.NAMES) == 58
    assert io.Int is io.Int and io.Custom("MY_TYPE").Input("x").kind == ["MY_TYPE", {}]


def test_options_come_in_order_or_by_name(io: Any) -> None:
    number = io.Int.Input("seed", "Seed", True, "tip", None, 5, 0, 10, 1, True, io.NumberDisplay.slider)
    assert number.optional and number.default == 5
    assert number.kind == [
        "INT",
        {"display_name": "Seed", "tooltip": "tip", "default": 5, "min": 0, "max": 10, "step": 1,
         "control_after_generate": True, "display": "slider"},
    ]  # fmt: skip
    assert io.Float.Input("f", default=1.5, force_input=True, raw_link=True).as_dict() == {
        "default": 1.5, "forceInput": True, "rawLink": True,
    }  # fmt: skip
    text = io.String.Input("t", multiline=True, dynamic_prompts=True, placeholder="p", extra_dict={"own": 1})
    assert text.as_dict() == {"multiline": True, "dynamicPrompts": True, "placeholder": "p", "own": 1}
    assert io.String.Input("t").as_dict() == {}
    assert io.Boolean.Input("b", default=True, label_on="yes").as_dict() == {"default": True, "label_on": "yes"}
    assert io.Color.Input("c").as_dict() == {"socketless": True}


def test_choices_may_be_an_enumeration_an_upload_or_a_route(io: Any) -> None:
    class Mode(Enum):
        a = "first"
        b = "second"

    assert io.Combo.Input("m", Mode, default=Mode.b).as_dict() == {"options": ["first", "second"], "default": "second"}
    upload = io.Combo.Input("f", ["x"], upload=io.UploadType.image, image_folder=io.FolderType.input)
    assert upload.as_dict() == {"options": ["x"], "image_upload": True, "image_folder": "input"}
    remote = io.Combo.Input("r", remote=io.RemoteOptions("/list", timeout=5))
    assert remote.as_dict()["remote"] == {
        "route": "/list", "refresh_button": True, "control_after_refresh": "first", "timeout": 5,
    }  # fmt: skip
    several = io.MultiCombo.Input("s", ["x", "y"], placeholder="pick", chip=True)
    assert several.as_dict() == {
        "options": ["x", "y"], "multiselect": True, "multi_select": {"placeholder": "pick", "chip": True},
    }  # fmt: skip


def test_what_is_written_twice_or_unknown_is_refused(io: Any) -> None:
    with pytest.raises(TypeError, match="each once"):
        io.Int.Input("a", "Name", display_name="Other")
    with pytest.raises(TypeError, match="each once"):
        io.Image.Input("a", *range(9))
    with pytest.raises(AttributeError, match=r"no 'Hologram' in Easel.*Custom\(IO_TYPE\)"):
        _ = io.Hologram
    with pytest.raises(AttributeError, match="no 'PreviewAudio'"):
        _ = sys.modules["comfy_api.latest.ui"].PreviewAudio
