"""Every transformers model goes through one strict loading, whatever it is loaded for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_florence import make_network
from transformers import Florence2ForConditionalGeneration

from grounded_seg.errors import WeightsError
from grounded_seg.weights.strict_loading import check_report, load_strictly

KEY = "model.vision_tower.convs.0.conv.bias"


def load(change: Callable[[dict[str, torch.Tensor]], Any], **options: Any) -> Any:
    network = make_network()
    tensors = {name: tensor for name, tensor in network.state_dict().items() if "embed_tokens" not in name}
    change(tensors)
    return load_strictly(
        Florence2ForConditionalGeneration,
        Path("folder"),
        "Florence-2",
        config=network.config,
        tensors=tensors,
        **options,
    )


def test_exactly_the_tensors_given_are_loaded() -> None:
    loaded = load(lambda tensors: tensors[KEY].fill_(0.25), dtype=torch.float32)
    assert loaded.state_dict()[KEY].eq(0.25).all()
    assert loaded.dtype is torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(KEY), f"Tensors 1 missing: {KEY}$"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "Tensors 1 unexpected: extra$"),
        (lambda tensors: tensors.update({KEY: torch.zeros(3)}), f"Tensors 1 of another shape: {KEY}$"),
    ],
)
def test_missing_unexpected_and_mismatched_tensors_are_named(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(WeightsError, match=f"^folder isn't the Florence-2 that its config.json describes. {message}"):
        load(change, dtype=torch.float32)


def test_what_transformers_refuses_is_one_line() -> None:
    with pytest.raises(WeightsError, match=r"^folder can't be loaded as Florence-2 \(.*nonsense"):
        load(lambda tensors: None, dtype=torch.float32, attn_implementation="nonsense")


class FullCard:
    @classmethod
    def from_pretrained(cls, name: None, **options: Any) -> None:
        assert name is None
        assert options["device_map"] == {"": "cuda:0"}
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_full_card_is_no_fault_of_the_weights() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        load_strictly(FullCard, Path("folder"), "model", config=None, tensors={}, device_map={"": "cuda:0"})


def test_a_report_with_an_error_is_refused() -> None:
    empty: dict[str, Any] = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
    check_report(Path("folder"), "model", empty)
    with pytest.raises(WeightsError, match=r"Tensors broken on the way$"):
        check_report(Path("folder"), "model", {**empty, "error_msgs": ["\nbroken on the way\nand more"]})
