"""Recorded samplers, custom sampling, conditioning and model patches on SD 1.5: latents within 2e-5, pictures within
2 levels. Those samplers and schedulers that test_sd15.py runs are not run again."""

from __future__ import annotations

import pytest

from tests.parity.harness import Harness

SAMPLERS = (
    "sampler_euler_cfg_pp", "sampler_euler_ancestral_cfg_pp", "sampler_heunpp2", "sampler_dpm_2_ancestral",
    "sampler_dpm_fast", "sampler_dpm_adaptive", "sampler_dpmpp_2s_ancestral", "sampler_dpmpp_2s_ancestral_cfg_pp",
    "sampler_dpmpp_sde", "sampler_dpmpp_sde_gpu", "sampler_dpmpp_2m_cfg_pp", "sampler_dpmpp_2m_sde_gpu",
    "sampler_dpmpp_2m_sde_heun", "sampler_dpmpp_2m_sde_heun_gpu", "sampler_dpmpp_3m_sde_gpu", "sampler_ddpm",
    "sampler_ipndm", "sampler_ipndm_v", "sampler_deis", "sampler_res_multistep", "sampler_res_multistep_cfg_pp",
    "sampler_res_multistep_ancestral", "sampler_res_multistep_ancestral_cfg_pp", "sampler_gradient_estimation",
    "sampler_gradient_estimation_cfg_pp", "sampler_er_sde", "sampler_seeds_2", "sampler_seeds_3", "sampler_sa_solver",
    "sampler_sa_solver_pece", "sampler_uni_pc_bh2",
)  # fmt: skip
CUSTOM = (
    "custom_cfgguider", "custom_basicguider", "custom_dualcfg", "custom_karras", "custom_exponential", "custom_polyexp",
    "custom_vp", "custom_beta", "custom_ays", "custom_sdturbo", "custom_split", "custom_nonoise", "custom_s_ancestral",
    "custom_s_lms", "custom_s_2msde", "custom_s_sde", "custom_s_adaptive", "custom_samplercustom",
)  # fmt: skip
CONDITIONING = (
    "cond_combine", "cond_average", "cond_concat", "cond_zero_out", "cond_area", "cond_mask", "cond_timesteps",
)  # fmt: skip
PATCHES = (
    "patch_freeu_v2", "patch_freeu", "patch_rescalecfg", "patch_vpred_zsnr", "patch_lcm", "patch_edm", "patch_pag",
    "patch_deepshrink",
)  # fmt: skip
CASES = SAMPLERS + CUSTOM + CONDITIONING + PATCHES

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, harness: Harness) -> None:
    harness.check(name)


def test_all_64_cases_ran(harness: Harness) -> None:
    assert len(CASES) == 64
    assert harness.ran == set(CASES)
