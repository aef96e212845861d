"""Every recorded workflow is run by a test; cases/index.json lists all 155 by subject. This needs no weights and
runs with the quick tests."""

from __future__ import annotations

import json

from tests.graph import test_image_nodes
from tests.parity import test_control, test_flux, test_pictures, test_sampling, test_sd3, test_sd15, test_sdxl
from tests.parity.harness import HERE

MODULES = (test_control, test_flux, test_pictures, test_sampling, test_sd15, test_sd3, test_sdxl)


def test_all_155_recorded_workflows_are_run_once():
    listed = [name for names in json.loads((HERE / "cases" / "index.json").read_text()).values() for name in names]
    assert len(listed) == len(set(listed)) == 155
    run = [name for module in MODULES for name in module.CASES] + test_image_nodes.CASES
    assert sorted(run) == sorted(listed)


def test_each_has_its_prompt_and_what_was_made_of_it():
    folders = [HERE / "cases" / name for module in MODULES for name in module.CASES]
    folders += [test_image_nodes.DATA / name for name in test_image_nodes.CASES]
    for folder in folders:
        assert (folder / "api.json").is_file(), folder.name
        assert any(path.suffix in (".png", ".latent") for path in folder.iterdir()), folder.name
