"""Everything a training run can be told, each setting once: type, default, range, words in English and Chinese.

The form, the TOML check, the command line, the run's config.toml and the documentation are made from this model.
Torch-free.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.errors import SettingsError

SECTIONS = ("what", "lora", "optimiser", "pictures", "captions", "objective", "prior", "memory", "output", "samples")
SECTION_TITLES: dict[str, tuple[str, str]] = {
    "what": ("What to train", "训练内容"),
    "lora": ("LoRA", "LoRA"),
    "optimiser": ("Steps and optimiser", "步数与优化器"),
    "pictures": ("Pictures", "图片"),
    "captions": ("Captions", "描述"),
    "objective": ("Objective", "训练目标"),
    "prior": ("Prior preservation", "先验保留"),
    "memory": ("Precision, memory and caches", "精度、显存与缓存"),
    "output": ("Saving", "保存"),
    "samples": ("Sample pictures", "示例图片"),
}


class Contradiction(SettingsError):
    en = "{first} and {second} exclude each other: {reason_en}."
    zh = "{first} 与 {second} 不能同时使用：{reason_zh}。"


class NothingToTrain(SettingsError):
    en = "linear, conv and train_text_encoder are all off: there is nothing to train. Turn one on."
    zh = "linear、conv 和 train_text_encoder 均已关闭，没有可训练的内容。请至少开启一项。"


class BucketRange(SettingsError):
    en = "min_bucket {low} <= resolution {resolution} <= max_bucket {high} does not hold. 0 chooses a bound itself."
    zh = "需满足 min_bucket {low} <= resolution {resolution} <= max_bucket {high}。设为 0 则自动选择。"


def _setting(
    default: Any, title: str, zh: str, help: str, help_zh: str, section: str, basic: bool = False, **limits: Any
) -> Any:
    extra: dict[str, Any] = {
        "title_zh": zh,
        "help_zh": help_zh,
        "section": section,
        "group": "basic" if basic else "advanced",
    }
    return Field(default, title=title, description=help, json_schema_extra=extra, **limits)


class TrainSettings(BaseModel):
    """One training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # One setting: what it is, then what it does in English and in Chinese, then where it belongs.
    # fmt: off
    name: str = _setting(
        "", "Name", "名称",
        "Name of the run and of the LoRA file. Empty takes the trigger word or the dataset's name.",
        "训练任务和 LoRA 文件的名称。留空则使用触发词或数据集名称。",
        "what", basic=True, pattern=r"^[^/\\:*?\"<>|\x00-\x1f]{0,80}$",
    )
    model: str = _setting(
        "", "Base model", "基础模型",
        "The checkpoint to train on, as listed under models/checkpoints.",
        "作为训练基础的模型文件，即 models/checkpoints 中列出的名称。",
        "what", basic=True,
    )
    dataset: str = _setting(
        "", "Dataset", "数据集",
        "A dataset by its name, or the path of a folder of pictures with .txt captions beside them.",
        "数据集名称，或包含图片及同名 .txt 描述的文件夹路径。",
        "what", basic=True,
    )
    trigger_word: str = _setting(
        "", "Trigger word", "触发词",
        "A word that the base model does not know; it comes first in every caption and calls the concept later.",
        "基础模型不认识的词；它会放在每条描述的最前面，之后用它来调用所学概念。",
        "what", basic=True, max_length=100,
    )
    method: Literal["lora"] = _setting(
        "lora", "Method", "训练方法",
        "What is trained: low-rank adapters (LoRA).", "训练方式：低秩适配器（LoRA）。",
        "lora",
    )
    rank: int = _setting(
        16, "Rank", "秩 (rank)",
        "Size of the adapters. More can hold more detail, and learns the dataset's accidents sooner.",
        "适配器的大小。越大可容纳的细节越多，也更容易记住数据集中的偶然特征。",
        "lora", basic=True, ge=1, le=1024,
    )
    alpha: float = _setting(
        0.0, "Alpha", "Alpha",
        "The adapters act at alpha / rank. 0 takes the rank, so that they act at 1.",
        "适配器以 alpha / rank 的强度起作用。0 表示与秩相同，即强度为 1。",
        "lora", ge=0, le=4096,
    )
    linear: bool = _setting(
        True, "Linear layers", "线性层",
        "Train the linear layers of the denoiser: attention, feed-forward, projections.",
        "训练去噪网络中的线性层：注意力、前馈和投影。",
        "lora",
    )
    conv: bool = _setting(
        False, "Convolutions", "卷积层",
        "Train the convolutions of the denoiser as well: finer textures and shapes, a larger file.",
        "同时训练去噪网络中的卷积层：纹理和形状更精细，文件更大。",
        "lora",
    )
    train_text_encoder: bool = _setting(
        False, "Train the text encoder", "训练文本编码器",
        "Train the text encoder as well, so that a new word can get a meaning of its own.",
        "同时训练文本编码器，使新词获得自己的含义。",
        "lora", basic=True,
    )
    steps: int = _setting(
        1500, "Steps", "步数",
        "Optimiser steps in all.", "优化器总步数。",
        "optimiser", basic=True, ge=1, le=1_000_000,
    )
    batch_size: int = _setting(
        1, "Batch size", "批大小",
        "Pictures in one forward pass.", "一次前向计算的图片数。",
        "optimiser", basic=True, ge=1, le=256,
    )
    gradient_accumulation_steps: int = _setting(
        1, "Gradient accumulation", "梯度累积",
        "Batches that are added up to one step: a larger batch in the memory of a small one.",
        "多个批次累加为一步：以小批次的显存获得大批次的效果。",
        "optimiser", ge=1, le=256,
    )
    optimizer: Literal["adamw", "adamw8bit"] = _setting(
        "adamw", "Optimiser", "优化器",
        "adamw, or adamw8bit with a quarter of its memory (CUDA with bitsandbytes installed).",
        "adamw，或显存占用仅四分之一的 adamw8bit（需要 CUDA 并安装 bitsandbytes）。",
        "optimiser",
    )
    learning_rate: float = _setting(
        1e-4, "Learning rate", "学习率",
        "Learning rate of the denoiser's adapters.", "去噪网络适配器的学习率。",
        "optimiser", basic=True, gt=0, le=1,
    )
    text_encoder_lr: float = _setting(
        0.0, "Text encoder learning rate", "文本编码器学习率",
        "Learning rate of the text encoder's adapters. 0 takes the learning rate above.",
        "文本编码器适配器的学习率。0 表示与上面的学习率相同。",
        "optimiser", ge=0, le=1,
    )
    lr_scheduler: Literal["constant", "linear", "cosine"] = _setting(
        "constant", "Learning rate schedule", "学习率调度",
        "How the learning rate goes on after the warm-up: stays, or falls to 0 at the last step.",
        "预热之后学习率的变化方式：保持不变，或在最后一步降到 0。",
        "optimiser",
    )
    warmup: int = _setting(
        0, "Warm-up steps", "预热步数",
        "Steps in which the learning rate rises from 0.", "学习率从 0 上升所用的步数。",
        "optimiser", ge=0, le=100_000,
    )
    weight_decay: float = _setting(
        0.01, "Weight decay", "权重衰减",
        "Pulls the adapters towards 0 a little at every step.", "每一步都将适配器略微拉向 0。",
        "optimiser", ge=0, le=1,
    )
    beta2: float = _setting(
        0.999, "Beta 2", "Beta 2",
        "How long AdamW remembers the size of gradients. 0.99 suits short runs.",
        "AdamW 对梯度大小的记忆长度。短时间训练可用 0.99。",
        "optimiser", ge=0.5, lt=1,
    )
    max_grad_norm: float = _setting(
        1.0, "Gradient clipping", "梯度裁剪",
        "Largest norm of the gradient; 0 does not clip.", "梯度的最大范数；0 表示不裁剪。",
        "optimiser", ge=0, le=1000,
    )
    seed: int = _setting(
        0, "Seed", "随机种子",
        "The same seed and settings give the same LoRA.", "相同的种子和设置会得到相同的 LoRA。",
        "optimiser", ge=0, le=2**53 - 1,
    )
    resolution: int = _setting(
        512, "Resolution", "分辨率",
        "Side of a square picture; other shapes get about as many pixels.",
        "正方形图片的边长；其他比例的图片像素数大致相同。",
        "pictures", basic=True, ge=16, le=4096,
    )
    buckets: bool = _setting(
        True, "Aspect ratio buckets", "宽高比分桶",
        "Keep each picture near its own shape. Off crops all of them square.",
        "让每张图片尽量保持原有比例。关闭则全部裁剪为正方形。",
        "pictures",
    )
    min_bucket: int = _setting(
        0, "Shortest bucket side", "分桶最短边",
        "Shortest side of a bucket; 0 takes half the resolution.", "分桶的最短边；0 表示取分辨率的一半。",
        "pictures", ge=0, le=4096,
    )
    max_bucket: int = _setting(
        0, "Longest bucket side", "分桶最长边",
        "Longest side of a bucket; 0 takes twice the resolution.", "分桶的最长边；0 表示取分辨率的两倍。",
        "pictures", ge=0, le=8192,
    )
    bucket_step: int = _setting(
        64, "Bucket step", "分桶步长",
        "Sides of buckets are multiples of this.", "分桶的边长为此值的倍数。",
        "pictures", ge=8, le=512, multiple_of=8,
    )
    repeats: int = _setting(
        1, "Repeats", "重复次数",
        "How often each picture comes in one epoch.", "每个周期中每张图片出现的次数。",
        "pictures", ge=1, le=10_000,
    )
    flip: bool = _setting(
        False, "Mirror at random", "随机镜像",
        "Show each picture mirrored half of the time. Not for things with a left and a right.",
        "一半的时间将图片左右镜像。不适用于左右不对称的事物。",
        "pictures",
    )
    augment_rotation: float = _setting(
        0.0, "Turn at random", "随机旋转",
        "Turn pictures by up to so many degrees either way; the corners stay full. For small sets.",
        "将图片向两侧随机旋转，最多此角度；边角不会留空。适用于小数据集。",
        "pictures", ge=0, le=45,
    )
    augment_scale: float = _setting(
        0.0, "Look closer at random", "随机放大",
        "Show a part of the picture, enlarged by up to this share: 0.2 is up to a fifth closer.",
        "随机截取并放大图片的一部分，最多放大此比例：0.2 表示最多放大五分之一。",
        "pictures", ge=0, le=1,
    )
    augment_colour: float = _setting(
        0.0, "Vary colours", "随机变色",
        "Vary brightness, contrast and saturation by up to this share. Not where colours matter.",
        "随机改变亮度、对比度和饱和度，最多此比例。不适用于颜色重要的情形。",
        "pictures", ge=0, le=1,
    )
    augment_variants: int = _setting(
        8, "Variants of a picture", "每张图片的变体数",
        "How many turned, closer or recoloured versions of each picture a run shows. Files are never changed.",
        "训练时每张图片使用多少个旋转、放大或变色的版本。文件本身不会改变。",
        "pictures", ge=1, le=1000,
    )
    caption_dropout: float = _setting(
        0.0, "Caption dropout", "描述丢弃",
        "How often a picture is shown with an empty caption. It weakens cfg on the concept.",
        "图片以空描述出现的概率。会削弱该概念上的 cfg 效果。",
        "captions", ge=0, le=1,
    )
    shuffle_caption: bool = _setting(
        False, "Shuffle tags", "打乱标签",
        "Bring the comma-separated parts of a caption in a new order every time.",
        "每次都将描述中以逗号分隔的部分重新排序。",
        "captions", basic=True,
    )
    keep_tokens: int = _setting(
        1, "Keep first tags", "保留前几个标签",
        "Parts at the start of a caption that stay in place when it is shuffled.",
        "打乱时描述开头保持不动的部分数量。",
        "captions", ge=0, le=255,
    )
    prediction: Literal["auto", "eps", "v"] = _setting(
        "auto", "Prediction", "预测类型",
        "What the base model predicts; auto reads it from the file.", "基础模型的预测类型；auto 表示从文件中读取。",
        "objective",
    )
    min_snr_gamma: float = _setting(
        0.0, "Min-SNR gamma", "Min-SNR gamma",
        "Weighs steps with little noise less (arXiv:2303.09556); 5 is usual, 0 turns it off.",
        "降低低噪声时间步的权重（arXiv:2303.09556）；通常为 5，0 表示关闭。",
        "objective", ge=0, le=100,
    )
    v_pred_like_loss: float = _setting(
        0.0, "v-like loss", "类 v 损失",
        "Adds weight to the noisiest steps, which decide large shapes and colours. 0 is off, 1 as with v-prediction.",
        "增加噪声最大的时间步的权重，它们决定大的形状和颜色。0 表示关闭，1 与 v 预测相同。",
        "objective", ge=0, le=1,
    )
    noise_offset: float = _setting(
        0.0, "Noise offset", "噪声偏移",
        "Adds noise to the mean of each channel: darker and lighter pictures become possible.",
        "向每个通道的均值添加噪声：可生成更暗或更亮的图片。",
        "objective", ge=0, le=1,
    )
    masked_loss: bool = _setting(
        True, "Use masks", "使用蒙版",
        "Learn mostly what the masks of pictures leave white; pictures without a mask count everywhere.",
        "主要学习蒙版中白色的部分；没有蒙版的图片全部计入。",
        "objective",
    )
    unmasked_weight: float = _setting(
        0.1, "Weight outside masks", "蒙版外权重",
        "How much the rest of a masked picture counts. A little keeps the ground from falling apart.",
        "蒙版以外部分的权重。保留少量可避免背景崩坏。",
        "objective", ge=0, le=1,
    )
    stratified_timesteps: bool = _setting(
        True, "Stratified timesteps", "分层时间步",
        "Spread the timesteps of a batch evenly: a steadier loss.", "让一个批次中的时间步均匀分布：损失更平稳。",
        "objective",
    )
    prior_fraction: float = _setting(
        0.0, "Prior part of a batch", "批次中的先验比例",
        "Part of every batch that is pictures made by the base model itself, so that it forgets less. 0 is off.",
        "每个批次中由基础模型自身生成的图片所占比例，以减少遗忘。0 表示关闭。",
        "prior", ge=0, le=0.9,
    )
    prior_samples: int = _setting(
        64, "Prior pictures", "先验图片数",
        "How many such pictures are made before training.", "训练前生成的先验图片数量。",
        "prior", ge=1, le=10_000,
    )
    prior_prompts: tuple[str, ...] = _setting(
        (), "Prior prompts", "先验提示词",
        "Prompts for them; {red|blue} takes one at random. Empty takes the captions without the trigger word.",
        "用于生成它们的提示词；{red|blue} 表示随机选取其一。留空则使用去掉触发词的描述。",
        "prior",
    )
    prior_weight: float = _setting(
        1.0, "Prior weight", "先验权重",
        "Weight of these pictures in the loss.", "这些图片在损失中的权重。",
        "prior", ge=0, le=10,
    )
    prior_steps: int = _setting(
        20, "Prior sampling steps", "先验采样步数",
        "Sampling steps of these pictures.", "生成这些图片的采样步数。",
        "prior", ge=1, le=200,
    )
    prior_cfg: float = _setting(
        4.0, "Prior cfg", "先验 cfg",
        "cfg of these pictures; lower is nearer to what the model knows.",
        "生成这些图片的 cfg；较低更接近模型已知的分布。",
        "prior", ge=1, le=30,
    )
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = _setting(
        "auto", "Mixed precision", "混合精度",
        "Type of the arithmetic; auto is full precision on a CPU and half on a GPU. The adapters stay in 32 bits.",
        "计算所用的数据类型；auto 在 CPU 上为全精度，在 GPU 上为半精度。适配器本身始终以 32 位保存。",
        "memory", basic=True,
    )
    gradient_checkpointing: bool = _setting(
        False, "Gradient checkpointing", "梯度检查点",
        "Compute activations twice instead of keeping them: far less memory, about a third slower.",
        "重新计算激活值而不保存：显存大幅减少，速度约慢三分之一。",
        "memory", basic=True,
    )
    cache_latents: bool = _setting(
        True, "Cache latents", "缓存潜变量",
        "Encode each picture once and keep the result on the disk.", "每张图片只编码一次，并将结果保存在磁盘上。",
        "memory",
    )
    cache_text: Literal["auto", "on", "off"] = _setting(
        "auto", "Cache text", "缓存文本",
        "Encode each caption once and keep it on the disk. It needs captions that stay and a text encoder that "
        "does not train; auto does it where it can.",
        "每条描述只编码一次并保存在磁盘上。要求描述固定且不训练文本编码器；auto 表示在可行时启用。",
        "memory",
    )
    save_every: int = _setting(
        0, "Save every", "保存间隔",
        "Steps between LoRA files kept in the run's folder; 0 keeps only the last.",
        "在任务文件夹中保存 LoRA 的步数间隔；0 表示只保留最后一个。",
        "output", basic=True, ge=0,
    )
    save_dtype: Literal["fp16", "bf16", "fp32"] = _setting(
        "fp16", "Type in the file", "文件精度",
        "Type of the numbers in the LoRA file.", "LoRA 文件中数值的类型。",
        "output",
    )
    state_every: int = _setting(
        100, "Save state every", "状态保存间隔",
        "Steps between saved states, from which a killed run goes on exactly where it was. 0 saves by time only.",
        "保存训练状态的步数间隔；被中断的任务可据此精确恢复。0 表示仅按时间保存。",
        "output", ge=0,
    )
    tensorboard: bool = _setting(
        True, "TensorBoard", "TensorBoard",
        "Write the metrics for TensorBoard as well.", "同时写入 TensorBoard 日志。",
        "output",
    )
    sample_every: int = _setting(
        0, "Sample every", "示例间隔",
        "Steps between sample pictures; 0 makes none.", "生成示例图片的步数间隔；0 表示不生成。",
        "samples", basic=True, ge=0,
    )
    sample_prompts: tuple[str, ...] = _setting(
        (), "Sample prompts", "示例提示词",
        "What to draw, one prompt a line.", "要绘制的内容，每行一条提示词。",
        "samples", basic=True,
    )
    sample_negative: str = _setting(
        "", "Negative prompt", "反向提示词",
        "What the sample pictures should not show.", "示例图片中不应出现的内容。",
        "samples",
    )
    sample_seed: int = _setting(
        0, "Sample seed", "示例种子",
        "Seed of the first sample picture; the next have the next seeds.",
        "第一张示例图片的种子；之后的图片依次加一。",
        "samples", ge=0, le=2**53 - 1,
    )
    sample_steps: int = _setting(
        20, "Sampling steps", "采样步数",
        "Sampling steps of the sample pictures.", "示例图片的采样步数。",
        "samples", ge=1, le=200,
    )
    sample_cfg: float = _setting(
        7.0, "cfg", "cfg",
        "cfg of the sample pictures.", "示例图片的 cfg。",
        "samples", ge=1, le=30,
    )
    sample_sampler: str = _setting(
        "dpmpp_2m", "Sampler", "采样器",
        "sampler_name of the sample pictures.", "示例图片的采样器。",
        "samples",
    )
    sample_scheduler: str = _setting(
        "karras", "Scheduler", "调度器",
        "scheduler of the sample pictures.", "示例图片的调度器。",
        "samples",
    )
    # fmt: on

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if not (self.linear or self.conv or self.train_text_encoder):
            raise NothingToTrain()
        low, high = self.bucket_range
        if not low <= self.resolution <= high:
            raise BucketRange(low=low, resolution=self.resolution, high=high)
        if self.cache_text == "on" and self.train_text_encoder:
            raise Contradiction(
                first="cache_text = on",
                second="train_text_encoder",
                reason_en="a text encoder that trains gives new results at every step",
                reason_zh="训练中的文本编码器每一步的结果都不同",
            )
        if self.cache_text == "on" and self.shuffle_caption:
            raise Contradiction(
                first="cache_text = on",
                second="shuffle_caption",
                reason_en="a shuffled caption is a new one every time",
                reason_zh="打乱后的描述每次都不同",
            )
        return self

    @property
    def bucket_range(self) -> tuple[int, int]:
        """Shortest and longest side of a bucket in pixels."""
        return self.min_bucket or self.resolution // 2, self.max_bucket or self.resolution * 2

    @property
    def augments(self) -> bool:
        """Whether pictures are shown in variants."""
        return bool(self.augment_rotation or self.augment_scale or self.augment_colour)

    @property
    def caches_text(self) -> bool:
        possible = not self.train_text_encoder and not self.shuffle_caption
        return self.cache_text == "on" or (self.cache_text == "auto" and possible)

    @property
    def scale_alpha(self) -> float:
        return self.alpha or float(self.rank)

    def to_toml(self) -> str:
        """As config.toml keeps them; reading that back gives equal settings."""
        return "".join(f"{name} = {_toml(value)}\n" for name, value in self.model_dump().items())


class LookSettings(BaseModel):
    """How many pictures of which training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of the dataset; it stands for the one in `train`.")
    train: TrainSettings
    count: int = Field(12, ge=1, le=100, description="Pictures to show.")
    start: int = Field(0, ge=0, le=1_000_000, description="Step to begin at.")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if isinstance(value, str):
        # a JSON string is a TOML basic string, but for DEL, which TOML wants escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
