"""What is trained: the bare base, quantized where asked; its trainable parameters, their optimizer, learning rate."""

import os
from dataclasses import replace
from functools import partial

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import BitsAndBytesConfig, Florence2ForConditionalGeneration, get_scheduler
from transformers.utils import is_bitsandbytes_available

from grounded_seg.detect.model.adapters import untie_head
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import Quantized, load_florence
from grounded_seg.errors import UsageError
from grounded_seg.train.fit.lora_product import use_lora_products
from grounded_seg.train.settings import Method, OptimizerName, Part, Quantization, Schedule, TrainSettings
from grounded_seg.weights.locate import LocatedWeights, locate
from grounded_seg.weights.sources import resolve

_TARGETS = {
    Part.LANGUAGE: r"language_model\..*\.(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
    Part.VISION: r"vision_tower\..*\.(?:qkv|proj|fc1|fc2)",
    Part.PROJECTOR: r"multi_modal_projector\.image_projection",
    Part.HEAD: r"lm_head",
}
"""Linear layers of each part, by the ends of their names in the native class."""
_PREFIXES = {
    # The word embeddings, which are the head's matrix too.
    "model.language_model.shared.weight": Part.HEAD,
    "model.language_model.": Part.LANGUAGE,
    "model.vision_tower.": Part.VISION,
    "model.multi_modal_projector.": Part.PROJECTOR,
}
_BY_TRANSFORMERS = {Schedule.COSINE: "cosine", Schedule.LINEAR: "linear", Schedule.CONSTANT: "constant_with_warmup"}


def locate_base(settings: TrainSettings) -> LocatedWeights:
    """Find or fetch the detector that the settings name, without any adapter."""
    sources = resolve(replace(settings.models, adapter="none"))
    return locate(sources.detector, offline=settings.models.offline)


def load_base(base: LocatedWeights, settings: TrainSettings, device: torch.device) -> FlorenceModel:
    """Load the base in float32, or quantized; `UsageError` if bitsandbytes is needed, or a GPU, and isn't there."""
    quantized = None
    if settings.quantization is not Quantization.NONE:
        if device.type != "cuda" or not is_bitsandbytes_available():
            raise UsageError(
                f"quantization {settings.quantization} needs a CUDA device and bitsandbytes; leave it out, or "
                "pip install bitsandbytes"
            )
        quantized = Quantized(quantization_config(settings.quantization), own_card(device))
    florence = load_florence(base.path, quantized=quantized)
    if quantized is not None:
        florence.network = prepare_model_for_kbit_training(
            florence.network, use_gradient_checkpointing=settings.gradient_checkpointing
        )
    # peft looks there whether the vocabulary was changed; without a name it would ask the hub, whenever it saves.
    florence.network.name_or_path = str(base.path)
    return florence


def own_card(device: torch.device) -> torch.device:
    """Give the GPU of this process: `torchrun` starts a process for each and numbers them."""
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", device.index or 0)))


def quantization_config(quantization: Quantization) -> BitsAndBytesConfig:
    """Give the library's configuration: 8-bit integers, or 4-bit NormalFloat (arXiv 2305.14314)."""
    if quantization is Quantization.INT8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def make_trainable(
    network: Florence2ForConditionalGeneration, settings: TrainSettings
) -> PeftModel | Florence2ForConditionalGeneration:
    """Prepare a network to be trained: everything but what the settings name is frozen.

    The network itself is changed: an adapter's layers are put into it, so that it is the tuned model. Where an adapter
    tunes the head, the head gets a matrix of its own beside the word embeddings'. An adapter's first weights come from
    torch's seed; it changes no answer before the first step.

    Returns:
        What is trained: peft's model, or with full tuning the network.
    """
    network.requires_grad_(False)
    if settings.gradient_checkpointing:
        # transformers renamed it in the middle of the releases that we take.
        enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if settings.method is Method.LORA:
        if Part.HEAD in settings.parts:
            untie_head(network)
        model = get_peft_model(network, _lora_config(settings))
        # peft would put the base's own head into every checkpoint, unasked.
        model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)
        use_lora_products(model)
        return model
    for name, parameter in network.named_parameters():
        part = next((part for prefix, part in _PREFIXES.items() if name.startswith(prefix)), None)
        parameter.requires_grad_(part in settings.parts)
    return network


def _lora_config(settings: TrainSettings) -> LoraConfig:
    targets = "|".join(_TARGETS[part] for part in sorted(settings.parts))
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        # peft wants the expression to match a module's whole name.
        target_modules=rf"(?:.*\.)?(?:{targets})",
    )


def n_trainable(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make the optimizer of the trainable parameters; its package is installed."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [one for one in learning if one.dim() > 1], "weight_decay": settings.weight_decay},
        # Biases and norms don't decay.
        {"params": [one for one in learning if one.dim() <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer is OptimizerName.ADAMW:
        return torch.optim.AdamW(groups, lr=settings.lr)
    from pytorch_optimizer import CAME

    optimizer: torch.optim.Optimizer = CAME(groups, lr=settings.lr)
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, n_steps: int) -> LambdaLR:
    """Make the schedule of a training of so many steps, more than those of the warm-up."""
    n_warmup = settings.warmup_steps
    if settings.schedule is Schedule.REX:
        return LambdaLR(optimizer, partial(rex_share, n_warmup=n_warmup, n_steps=n_steps))
    schedule: LambdaLR = get_scheduler(_BY_TRANSFORMERS[settings.schedule], optimizer, n_warmup, n_steps)
    return schedule


def rex_share(step: int, *, n_warmup: int, n_steps: int) -> float:
    """Give the share of the highest rate at a step: REX (arXiv 2107.04197, equation 2) after a linear warm-up.

    >>> rex_share(50, n_warmup=0, n_steps=100)
    0.6666666666666667
    """
    if step < n_warmup:
        return step / n_warmup
    left = 1 - min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))
    return left / (0.5 + 0.5 * left)
