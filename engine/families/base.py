"""What a model family is, and what flows along MODEL, CLIP and VAE links.

A family is one file: `SPEC` (torch-free, so that a server without torch can name a file and draw a form) and a class
whose methods do the work in the worker. Generation and training read the same family. Tensors that go in and out are
in the shapes of the graph; modules come from leases and are never moved here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from engine.weights.header import Header

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.controls.base import Residuals
    from engine.families.parts.hook import ClipHooks
    from engine.families.parts.patch import Patch
    from engine.families.parts.prompt import Token
    from engine.families.parts.schedule import Schedule
    from engine.models.manager import ModelManager, ModelRef
    from engine.weights.adapter_kinds import ModuleChange
    from engine.weights.fused import FusedMap
    from engine.weights.lora import LoraEntry, LoraFile

Part = Literal["denoiser", "text_encoder", "text_encoder_2", "text_encoder_3"]
TEXT_PARTS: tuple[Part, ...] = ("text_encoder", "text_encoder_2", "text_encoder_3")  # in the order of Clip.refs
Prediction = Literal["eps", "v", "x0", "img_to_img", "lcm", "edm", "flow", "cosmos_rflow"]  # sampling/prediction.py
WeightDtype = Literal["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]  # ComfyUI's names
# One text for all text encoders; or one for each by its name in Clip.names, which may be in tokens already: chunks.
Prompt = str | Mapping[str, "str | Sequence[Sequence[Token]]"]


@dataclass(frozen=True)
class LatentFormat:
    """Latents as the denoiser sees them = (vae latents - shift) * scale; where channels have means and deviations of
    their own (Playground 2.5), (vae latents - mean) * scale / deviation."""

    channels: int = 4
    scale: float = 0.18215
    shift: float = 0.0
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    rgb: tuple[tuple[float, float, float], ...] = ()  # one row a channel: a cheap picture of a latent
    rgb_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """(batch, c, h, w) of a VAE -> as the denoiser sees them."""
        shift, scale = self._numbers(latents)
        return (latents - shift) * scale

    def unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """The way back."""
        shift, scale = self._numbers(latents)
        return latents / scale + shift

    def _numbers(self, latents: torch.Tensor) -> tuple[Any, Any]:
        if not self.means:
            return self.shift, self.scale
        means, deviations = (latents.new_tensor(row).view(-1, 1, 1) for row in (self.means, self.deviations))
        return means, self.scale / deviations


@dataclass(frozen=True)
class Defaults:
    """What a form starts with for this family."""

    width: int = 512
    height: int = 512
    steps: int = 20
    cfg: float = 7.0
    sampler_name: str = "euler"
    scheduler: str = "normal"


@dataclass(frozen=True)
class FamilySpec:
    """A family without torch."""

    name: str  # "sd1"
    title: str  # "Stable Diffusion 1.x"
    prediction: Prediction
    latent: LatentFormat
    defaults: Defaults
    architecture: str  # modelspec.architecture, "stable-diffusion-v1"
    base_model_version: str  # ss_base_model_version, "sd_v1"
    family_class: str  # "engine.families.sd1:SD1", imported in the worker
    text_widths: tuple[int, int]  # of a token's encoding and of the pooled text, as its makers have them
    clip_types: tuple[str, ...] = ()  # `type` of CLIPLoader and DualCLIPLoader that may mean this family
    implementation: str = "sgm"  # modelspec.implementation: whose names its files have
    joint_attention: bool = (
        False  # text and picture attend to each other as one: repeating a prompt would weigh it more
    )


@dataclass(frozen=True)
class Detected:
    """What a family says of a file by its header. layout is "ldm", "diffusers" ...; prediction as this file has it."""

    family: str
    layout: str
    prediction: Prediction
    defaults: Defaults
    factor: int = 8  # pixels per latent cell along a side, of this file's VAE
    distilled: str = ""  # the way in which it was distilled to few steps, if it was: "Lightning"


class FamilyModule(Protocol):
    """What a module of this package has beside its class. Torch-free."""

    SPEC: FamilySpec

    def detect(self, header: Header) -> Detected | None:
        """A checkpoint: denoiser, text encoders and VAE in one file or folder."""
        ...

    def detect_denoiser(self, header: Header) -> Detected | None:
        """A denoiser alone in a file (UNETLoader); with a checkpoint's other parts beside it, it is one as well."""
        ...

    def detect_vae(self, header: Header) -> bool:
        """A VAE alone in a file."""
        ...

    def detect_clip(self, headers: Sequence[Header]) -> bool:
        """Text encoders alone in files, in any order: all that this family wants, or a part it can do with."""
        ...


@dataclass(frozen=True)
class Adapter:
    """A LoRA, or an adapter of another kind, acting on one part of a model: what happens to each module, at a strength.

    It is never merged into shared weights; it acts beside them while a model runs (parts/adapters.py: `acting`). `key`
    says which file or live training run it is. Of a running training the entries hold its own tensors, read at each
    call: give it a new key whenever they changed.
    """

    key: str
    title: str
    strength: float
    entries: Mapping[str, LoraEntry | ModuleChange] = field(repr=False, compare=False)  # by module name
    part: Part = "denoiser"  # whose modules these are; a Clip holds one adapter for each text encoder


@dataclass(frozen=True)
class LiveLora:
    """A LoRA under training. Under a name in `ctx.live` it stands for the file of that name in LoraLoader nodes.

    Its entries hold the training's own tensors; `key` changes with every step, so that no cached result is taken for
    the present one.
    """

    key: str
    entries: Mapping[Part, Mapping[str, LoraEntry]] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Model:
    """A MODEL link: a denoiser, what acts beside it and how it is sampled."""

    family: Family
    ref: ModelRef
    config: Mapping[str, Any]  # diffusers' config of the denoiser
    prediction: Prediction
    latent: LatentFormat
    modules: Mapping[str, tuple[int, ...]] = field(repr=False)  # {module: shape of its weight}: what LoRAs may act on
    adapters: tuple[Adapter, ...] = ()
    schedule: Schedule | None = None  # in place of the family's
    patches: tuple[Patch, ...] = ()  # what acts for the time of a run: on the module, on the guidance
    options: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # what its file says of it


@dataclass(frozen=True)
class Padding:
    """Of a text in a T5: how many tokens of padding follow it, and how many tokens there are at least."""

    more: int = 0
    least: int = 0

    def length(self, tokens: int) -> int:
        return max(self.least, tokens + self.more)


class EmbeddingFolders(tuple[Path, ...]):
    """Folders with textual inversions. allow_pickle: the owner lets files be read that could hold more than tensors."""

    allow_pickle: bool

    def __new__(cls, folders: Iterable[Path] = (), *, allow_pickle: bool = False) -> EmbeddingFolders:
        made = super().__new__(cls, folders)
        made.allow_pickle = allow_pickle
        return made


@dataclass(frozen=True)
class Clip:
    """A CLIP link: text encoders with their tokenizers."""

    family: Family
    refs: tuple[ModelRef, ...]
    tokenizers: tuple[Any, ...]
    configs: tuple[Mapping[str, Any], ...]
    modules: tuple[Mapping[str, tuple[int, ...]], ...] = field(repr=False)  # per encoder, as in Model
    names: tuple[str, ...] = ("l",)  # per encoder, ComfyUI's: "l", "g", "h", "t5xxl"
    adapters: tuple[Adapter, ...] = ()
    stop_at_layer: int | None = None  # ComfyUI's CLIPSetLastLayer: -1 is the last
    embeddings: EmbeddingFolders = field(default_factory=EmbeddingFolders)
    padding: Padding | None = None  # of T5, in place of the family's
    hooks: ClipHooks | None = None  # what acts while prompts are encoded, and with them in the denoiser
    about: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # what its file says of it


@dataclass(frozen=True)
class Vae:
    """A VAE link. `factor` is pixels per latent cell along a side."""

    family: Family
    ref: ModelRef
    config: Mapping[str, Any]
    latent: LatentFormat
    factor: int
    about: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # what its file says of it


@dataclass(frozen=True)
class Components:
    """What one checkpoint file or folder holds. Nothing of it is read yet but the header."""

    model: Model
    clip: Clip
    vae: Vae
    title: str
    digest: str  # identity of the file, part of every model key


@dataclass(frozen=True)
class TextBatch:
    """Encoded prompts. cross: (batch, tokens, width); pooled: (batch, width) or None.

    extra: what else the denoiser is told, by names that the family's `predict` knows, batch first. "concat" (batch, c,
    height, width) lies over the latent, so that who cuts an area out of the latent cuts it as well.
    """

    cross: torch.Tensor
    pooled: torch.Tensor | None = None
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Family(Protocol):
    @property
    def spec(self) -> FamilySpec: ...

    def load_checkpoint(
        self, manager: ModelManager, path: Path, embeddings: Sequence[Path] = (), *, allow_pickle: bool = False
    ) -> Components:
        """Registers the parts of a checkpoint (file, or folder in diffusers' layout) with the manager; only its header
        is read."""
        ...

    def load_vae(self, manager: ModelManager, path: Path, *, allow_pickle: bool = False) -> Vae:
        """A VAE alone in a file."""
        ...

    def load_denoiser(
        self, manager: ModelManager, path: Path, *, weight_dtype: WeightDtype = "default", allow_pickle: bool = False
    ) -> Model:
        """A denoiser alone in a file, its weights kept in that type."""
        ...

    def load_clip(
        self,
        manager: ModelManager,
        paths: Sequence[Path],
        embeddings: Sequence[Path] = (),
        *,
        allow_pickle: bool = False,
    ) -> Clip:
        """Text encoders alone in files, in any order."""
        ...

    def text_widths(self, model: Model) -> tuple[int, int | None]:
        """Of a token's encoding and of the pooled text as this model reads them; None where it reads no pooled one."""
        ...

    def numbers_held(self, model: Model, cells: int, tokens: int) -> int:
        """How many numbers a call of the denoiser holds at its peak for one prompt of so many tokens and a latent of so
        many cells. Measured; weights are not in it."""
        ...

    def encode_prompt(self, modules: Sequence[nn.Module], clip: Clip, text: Prompt) -> TextBatch:
        """One prompt with ComfyUI's weights, chunks of 77 and embeddings -> (1, 77 * chunks, width). The adapters of
        `clip` are not seen to here: engine/nodes/conditioning.py lets them act."""
        ...

    def draft_prompt(self, clip: Clip, text: Prompt) -> TextBatch:
        """Zeros of the shapes that encode_prompt gives. The prompt is read as it would be; no weights are."""
        ...

    def encode_captions(self, modules: Sequence[nn.Module], clip: Clip, captions: Sequence[str]) -> TextBatch:
        """Captions without weights, one chunk of 77 each, differentiable: what training uses -> (n, 77, width)."""
        ...

    def encode_image(self, module: nn.Module, vae: Vae, pixels: torch.Tensor) -> torch.Tensor:
        """pixels (batch, 3, height, width) in -1..1 -> latents (batch, c, height / factor, width / factor), as the
        denoiser sees them (scaled); the mean of the distribution."""
        ...

    def decode_latent(self, module: nn.Module, vae: Vae, latents: torch.Tensor) -> torch.Tensor:
        """The way back: scaled latents -> pixels (batch, 3, height, width), not clamped."""
        ...

    def extra_conditions(
        self, model: Model, pooled: torch.Tensor | None, options: Mapping[str, Any], latent: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """What the denoiser is told beside the text: `TextBatch.extra` for `predict`, of 1 or `latent`'s batch rows.

        pooled: (batch, width) of the prompt. options: the dict of a CONDITIONING entry (width, crop_w, guidance,
        concat_latent_image ...), and of the run "prompt_type" ("positive" or "negative") and "noise_mask" (batch, 1,
        height, width of the latent) where there is one. latent: where the run starts, as the denoiser sees it.
        """
        ...

    def predict(
        self,
        module: nn.Module,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        text: TextBatch,
        control: Residuals | None = None,
    ) -> torch.Tensor:
        """One call of the denoiser. x (batch, c, h, w) as the prediction's input is (sampling/prediction.py: of unit
        variance for eps and v), timesteps (batch,) float as the schedule tells them; returns eps, v ... as
        `Model.prediction` says. control: what ControlNets of this family add to its layers. Differentiable."""
        ...

    def schedule(self, model: Model) -> Schedule:
        """How noisy the training was. Patches may put another in `Model.schedule`."""
        ...

    def alphas_cumprod(self, model: Model) -> torch.Tensor:
        """(1000,) float64 on the CPU, the noise schedule of the training; float32 is coarse at its small end."""
        ...

    def lora_targets(self, module: nn.Module, part: Part, *, linear: bool, conv: bool) -> list[str]:
        """Names of the modules a LoRA of that reach trains."""
        ...

    def lora_key(self, model: Model, part: Part, module_name: str) -> str:
        """The kohya key (without suffix) of a module: `lora_unet_down_blocks_0_attentions_0_proj_in`."""
        ...

    def layout(self, model: Model) -> FusedMap:
        """How the files of its maker name the denoiser's layers."""
        ...

    def text_place(self, name: str) -> str:
        """What the names of a text encoder (of that name in Clip.names) begin with in a checkpoint of this family."""
        ...

    @property
    def vae_place(self) -> str:
        """What the names of the VAE begin with there."""
        ...

    def read_lora(self, path: Path, model: Model | None, clip: Clip | None, *, allow_pickle: bool = False) -> LoraFile:
        """A LoRA file of any dialect of the field (kohya, diffusers, peft, LDM names), its entries by part and module.
        Raises a FileError for what is no LoRA or fits none of the parts that are given."""
        ...
