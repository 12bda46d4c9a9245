"""The bare base that a training starts from, quantized where asked."""

import os
from dataclasses import replace

import torch
from peft import prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import Quantized, load_florence
from grounded_seg.errors import UsageError
from grounded_seg.train.settings import Quantization, TrainSettings
from grounded_seg.weights.locate import LocatedWeights, locate
from grounded_seg.weights.sources import resolve


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
