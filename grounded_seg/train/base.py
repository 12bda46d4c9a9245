"""The bare base that a training starts from, quantized where asked."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from peft import prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig, Florence2ForConditionalGeneration
from transformers.utils import is_bitsandbytes_available

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import load_florence
from grounded_seg.errors import UsageError
from grounded_seg.train.settings import Quantization, TrainSettings
from grounded_seg.weights.locate import LocatedWeights, locate
from grounded_seg.weights.sources import resolve
from grounded_seg.weights.strict_loading import check_report, quiet_transformers


def locate_base(settings: TrainSettings) -> LocatedWeights:
    """Find or fetch the detector that the settings name, without any adapter."""
    sources = resolve(replace(settings.models, adapter="none"))
    return locate(sources.detector, offline=settings.models.offline)


def load_base(base: LocatedWeights, settings: TrainSettings, device: torch.device) -> FlorenceModel:
    """Load the base in float32, or quantized where the settings say so.

    Raises:
        UsageError: If bitsandbytes is needed and isn't installed, or the device is no GPU.
        WeightsError: If the weights are damaged or another model's.
    """
    florence = load_florence(base.path)
    if settings.quantization is not Quantization.NONE:
        if device.type != "cuda" or not is_bitsandbytes_available():
            raise UsageError(
                f"quantization {settings.quantization} needs a CUDA device and bitsandbytes; leave it out, or "
                "pip install bitsandbytes"
            )
        florence.network = prepare_model_for_kbit_training(
            quantized(florence.network, base.path, settings.quantization, own_card(device)),
            use_gradient_checkpointing=settings.gradient_checkpointing,
        )
    # peft looks there whether the vocabulary was changed; without a name it would ask the hub, whenever it saves.
    florence.network.name_or_path = str(base.path)
    return florence


def quantized(
    network: Florence2ForConditionalGeneration, source: Path, quantization: Quantization, device: torch.device
) -> Florence2ForConditionalGeneration:
    """Quantize a network that was loaded strictly, and be as strict again.

    Args:
        network: In float32, with its own rules of generation.
        source: Where it came from, for messages.
        quantization: To 8 or 4 bits.
        device: Where the quantized network goes.

    Raises:
        WeightsError: If any part of the quantized network would be random, or any tensor isn't used.
    """
    with quiet_transformers():
        small, report = Florence2ForConditionalGeneration.from_pretrained(
            None,
            config=network.config,
            state_dict=network.state_dict(),
            dtype=torch.float32,
            quantization_config=quantization_config(quantization),
            device_map={"": device},
            output_loading_info=True,
        )
    check_report(source, "Florence-2", report)
    small.generation_config = network.generation_config
    return small


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
