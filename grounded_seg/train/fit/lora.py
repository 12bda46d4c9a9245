"""Which of Florence-2's weights learn: an adapter beside them, or parts of the model itself."""

from collections.abc import Collection
from functools import partial

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.model.adapters import untie_head
from grounded_seg.train.settings import Method, Part, TrainSettings

_TARGETS = {
    Part.LANGUAGE: r"language_model\..*\.(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
    Part.VISION: r"vision_tower\..*\.(?:qkv|proj|fc1|fc2)",
    Part.PROJECTOR: r"multi_modal_projector\.image_projection",
    Part.HEAD: r"lm_head",
}
"""Linear layers of each part, by the ends of their names in the native class."""

_PREFIXES = {
    Part.LANGUAGE: "model.language_model.",
    Part.VISION: "model.vision_tower.",
    Part.PROJECTOR: "model.multi_modal_projector.",
}
_WORD_EMBEDDINGS = "model.language_model.shared.weight"


def lora_config(settings: TrainSettings) -> LoraConfig:
    """Give peft's configuration for these settings."""
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


def make_trainable(
    network: Florence2ForConditionalGeneration, settings: TrainSettings
) -> PeftModel | Florence2ForConditionalGeneration:
    """Prepare a network to be trained: everything but what the settings name is frozen.

    Args:
        network: Changed in place. The adapter's layers are put into it, so that it is the tuned model itself. Where an
            adapter tunes the head, the head gets a matrix of its own beside the word embeddings'.
        settings: Method, parts, and for an adapter its rank and the rest. Its first weights come from torch's seed; it
            changes no answer before the first step.

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
        model = get_peft_model(network, lora_config(settings))
        # peft would put the base's own head into every checkpoint, unasked.
        model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)
        return model
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_part_of(name) in settings.parts)
    return network


def n_trainable(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def trains_vision(parts: Collection[Part]) -> bool:
    """Tell whether gradients have to go through the vision tower or its projector."""
    return bool({Part.VISION, Part.PROJECTOR} & set(parts))


def _part_of(name: str) -> Part | None:
    if name == _WORD_EMBEDDINGS:
        return Part.HEAD
    return next((part for part, prefix in _PREFIXES.items() if name.startswith(prefix)), None)
