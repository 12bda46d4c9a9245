"""The base that a training starts from: strict, whatever it is quantized to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_florence import save_tiny_florence
from train_cases import tiny_settings
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.model import load as loading
from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.train.fit import trainable as bases
from grounded_seg.train.settings import Quantization
from grounded_seg.weights.locate import LocatedWeights

CARD = torch.device("cuda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("base"))


class Quantizer:
    """Stands in for transformers' loading with bitsandbytes, which this machine has no GPU for."""

    def __init__(self, wrong: dict[str, Any]) -> None:
        self.wrong = wrong
        self.seen: dict[str, Any] = {}

    def from_pretrained(self, path: object, **options: Any) -> tuple[Any, dict[str, Any]]:
        assert path is None, "nothing but what was loaded strictly"
        self.seen = dict(options)
        del options["quantization_config"], options["device_map"]
        network, report = Florence2ForConditionalGeneration.from_pretrained(None, **options)
        return network, report | self.wrong


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]) -> Quantizer:
    quantizer = Quantizer(wrong)
    monkeypatch.setattr(bases, "is_bitsandbytes_available", lambda: True)
    monkeypatch.setattr(bases, "quantization_config", lambda quantization: str(quantization))
    monkeypatch.setattr(bases, "prepare_model_for_kbit_training", lambda network, **_: network)
    monkeypatch.setattr(loading, "Florence2ForConditionalGeneration", quantizer)
    settings = tiny_settings(Path("d"), Path("o"), folder, quantization=Quantization.NF4)
    bases.load_base(LocatedWeights(folder, "tiny", None, ""), settings, CARD)
    return quantizer


def test_a_quantized_base_has_the_tensors_that_were_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = load(folder, monkeypatch, {})
    assert "model.language_model.shared.weight" in quantizer.seen["state_dict"]
    assert quantizer.seen["quantization_config"] == "4bit"
    assert quantizer.seen["device_map"] == {"": torch.device("cuda:0")}
    assert quantizer.seen["dtype"] is torch.float32


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"missing_keys": {"a.weight"}}, "1 missing: a.weight"),
        ({"unexpected_keys": {"b.weight"}}, "1 unexpected: b.weight"),
        ({"mismatched_keys": {("c.weight", 1, 2)}}, "1 of another shape: c.weight"),
    ],
)
def test_a_quantized_base_that_lacks_a_part_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(WeightsError, match=told):
        load(folder, monkeypatch, wrong)


def test_quantization_needs_a_gpu(folder: Path) -> None:
    settings = tiny_settings(Path("d"), Path("o"), folder, quantization=Quantization.INT8)
    with pytest.raises(UsageError, match="quantization 8bit needs a CUDA device and bitsandbytes"):
        bases.load_base(LocatedWeights(folder, "tiny", None, ""), settings, torch.device("cpu"))
