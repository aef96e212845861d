"""`comfy.model_management`: where to compute and how much room there is. Models are placed by the studio alone."""

from __future__ import annotations

import enum
from typing import Any

import torch

from engine.custom.host import context, host
from engine.errors import Cancelled
from engine.families.base import Clip, Model, Vae

InterruptProcessingException = Cancelled
OOM_EXCEPTION = torch.OutOfMemoryError


class VRAMState(enum.Enum):
    DISABLED = 0
    NO_VRAM = 1
    LOW_VRAM = 2
    NORMAL_VRAM = 3
    HIGH_VRAM = 4
    SHARED = 5


class CPUState(enum.Enum):
    GPU = 0
    CPU = 1
    MPS = 2


current_loaded_models: list[Any] = []


def __getattr__(name: str) -> Any:
    match name:
        case "vram_state":
            return VRAMState.DISABLED if get_torch_device().type == "cpu" else VRAMState.NORMAL_VRAM
        case "cpu_state":
            return {"cpu": CPUState.CPU, "mps": CPUState.MPS}.get(get_torch_device().type, CPUState.GPU)
        case "total_vram":
            return get_total_memory() / 2**20
    raise AttributeError(f"comfy.model_management has no {name!r} here (docs/custom-nodes.md)")


def get_torch_device() -> torch.device:
    """The device that the studio computes on."""
    manager = host().models
    return manager.device.torch if manager else torch.device("cpu")


def get_torch_device_name(device: Any = None) -> str:
    manager = host().models
    return manager.device.name if manager else "CPU"


def cpu() -> torch.device:
    return torch.device("cpu")


def intermediate_device() -> torch.device:
    """Where values on links lie."""
    return cpu()


unet_offload_device = vae_offload_device = text_encoder_offload_device = intermediate_device
vae_device = text_encoder_device = get_torch_device


def unet_inital_load_device(parameters: int = 0, dtype: Any = None) -> torch.device:
    return cpu()


def is_device_cpu(device: Any) -> bool:
    return torch.device(device).type == "cpu"


def is_device_mps(device: Any) -> bool:
    return torch.device(device).type == "mps"


def is_device_cuda(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def is_nvidia() -> bool:
    return get_torch_device().type == "cuda" and torch.version.cuda is not None


def is_amd() -> bool:
    return get_torch_device().type == "cuda" and torch.version.hip is not None


def is_intel_xpu() -> bool:
    return False


def cpu_mode() -> bool:
    return get_torch_device().type == "cpu"


def mps_mode() -> bool:
    return get_torch_device().type == "mps"


def xformers_enabled() -> bool:
    return False


def pytorch_attention_enabled() -> bool:
    return True


def should_use_fp16(device: Any = None, **about: Any) -> bool:
    return get_torch_device().type in ("cuda", "mps")


def should_use_bf16(device: Any = None, **about: Any) -> bool:
    return get_torch_device().type == "cuda" and torch.cuda.is_bf16_supported()


def unet_dtype(device: Any = None, model_params: int = 0, **about: Any) -> torch.dtype:
    return torch.float16 if should_use_fp16(device) else torch.float32


def vae_dtype(device: Any = None, allowed_dtypes: Any = ()) -> torch.dtype:
    return torch.float32


def text_encoder_dtype(device: Any = None) -> torch.dtype:
    return unet_dtype(device)


def get_autocast_device(device: Any) -> str:
    return torch.device(device).type


def device_supports_non_blocking(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def dtype_size(dtype: torch.dtype) -> int:
    return dtype.itemsize


def module_size(module: torch.nn.Module) -> int:
    """Bytes of its weights."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def get_total_memory(dev: Any = None, torch_total_too: bool = False) -> Any:
    manager = host().models
    total = manager.device.total() if manager else 0
    return (total, total) if torch_total_too else total


def get_free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:
    manager = host().models
    free = manager.device.free() if manager else 0
    return (free, free) if torch_free_too else free


def free_memory(memory_required: float, device: Any = None, keep_loaded: Any = ()) -> list[Any]:
    """Take idle models off until there is that much room for a pack's own."""
    manager = host().models
    if manager is not None:
        manager.trim(max(0, int(memory_required - manager.device.free())))
    return []


def soft_empty_cache(force: bool = False) -> None:
    manager = host().models
    if manager is not None:
        manager.device.trim()


def unload_all_models() -> None:
    manager = host().models
    if manager is not None:
        manager.trim()


def cleanup_models() -> None:
    pass  # models that nobody holds go by themselves


def load_models_gpu(models: Any, *_: Any, **__: Any) -> None:
    """For models of links there is nothing to do: the studio places what runs. Modules of a pack's own are the pack's
    to place, on `get_torch_device()` after `free_memory`."""
    strange = [type(model).__name__ for model in models if not isinstance(model, Model | Clip | Vae)]
    if strange:
        raise TypeError(f"load_models_gpu takes models of links, not {', '.join(strange)} (docs/custom-nodes.md)")


def load_model_gpu(model: Any) -> None:
    load_models_gpu([model])


def cast_to_device(tensor: torch.Tensor, device: Any, dtype: torch.dtype | None, copy: bool = False) -> torch.Tensor:
    return tensor.to(device=device, dtype=dtype, copy=copy)


def throw_exception_if_processing_interrupted() -> None:
    call = context()
    if call is not None:
        call.interrupt_check()


def processing_interrupted() -> bool:
    try:
        throw_exception_if_processing_interrupted()
    except Cancelled:
        return True
    return False
