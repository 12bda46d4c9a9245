"""Weights in the order that a step reads fastest: the same answers, nothing held twice, adapters left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tiny_florence import make_image, save_adapter, save_tiny_florence

from grounded_seg.detect.decoding.weight_order import Product, keys_and_values, put_in_order
from grounded_seg.detect.model.adapters import attach_adapters
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import load_florence
from grounded_seg.device.kernels import onednn_is_right
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.settings import DetectSettings, ModelSettings, Precision

pytestmark = pytest.mark.skipif(not onednn_is_right(torch.float32), reason="this torch has no oneDNN product")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("florence"))


def ordered(folder: Path) -> FlorenceModel:
    model = load_florence(folder)
    put_in_order(model.network)
    return model


def test_values_and_ties_stay_and_nothing_is_held_twice(folder: Path) -> None:
    plain, model = load_florence(folder), ordered(folder)
    expected = plain.network.state_dict()
    found = model.network.state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    head = model.network.lm_head.weight
    assert head is model.network.get_input_embeddings().weight
    assert head.stride() == (1, len(head))
    memory = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in model.network.parameters()}
    assert sum(memory.values()) == sum(one.numel() * 4 for one in model.network.parameters())


@pytest.mark.parametrize("n_rows", [1, 2, 16])
def test_products_of_layers_together_are_those_of_each(folder: Path, n_rows: int) -> None:
    model = ordered(folder)
    layers = model.network.model.language_model.decoder.layers
    own = layers[0].self_attn
    for group in (
        *((own.q_proj, own.k_proj, own.v_proj), (own.out_proj,), (layers[1].fc1,), (layers[1].fc2,)),
        *(keys_and_values(layers), (model.network.lm_head,)),
    ):
        states = torch.linspace(-1, 1, n_rows * group[0].in_features).sin().view(n_rows, -1)
        with torch.inference_mode():
            expected = torch.cat([one(states) for one in group], dim=-1)
            found = torch.cat(list(Product(*group).parts(states)), dim=-1)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    # They are one product, and not one for each.
    assert Product(own.q_proj, own.k_proj, own.v_proj)._weight is not None
    assert Product(*keys_and_values(layers))._weight is not None
    assert Product(own.k_proj, own.q_proj)._weight is None


@pytest.mark.parametrize("n_questions", [1, 3])
def test_answers_are_those_of_the_usual_order(folder: Path, n_questions: int) -> None:
    plain, model = load_florence(folder), ordered(folder)
    features = plain.encode_images([make_image(seed) for seed in range(n_questions)])
    questions = [f"Locate the phrases in the caption: a red car {n}" for n in range(n_questions)]
    found, expected = (one.answer(features, questions, max_new_tokens=30) for one in (model, plain))
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            one.evidence.location_probabilities, other.evidence.location_probabilities, rtol=0, atol=1e-5
        )


def test_layers_with_an_adapter_are_left_alone(folder: Path, tmp_path: Path) -> None:
    model = load_florence(folder)
    config = LoraConfig(r=4, target_modules=["q_proj", "fc1"], init_lora_weights=False)
    attach_adapters(model.network, {"one": save_adapter(tmp_path / "adapter", config)})
    put_in_order(model.network)
    layer = model.network.model.language_model.decoder.layers[0]
    assert layer.fc1.base_layer.weight.is_contiguous()
    assert layer.self_attn.k_proj.weight.is_contiguous()
    assert not layer.self_attn.out_proj.weight.is_contiguous()


def test_other_dtypes_are_left_alone(folder: Path) -> None:
    model = load_florence(folder)
    model.network.to(dtype=torch.bfloat16)
    put_in_order(model.network)
    assert all(one.is_contiguous() for one in model.network.model.language_model.parameters())


def test_a_loaded_detector_has_it() -> None:
    models = ModelSettings(preset="demo", device="cpu", dtype=Precision.FLOAT32)
    model = load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model
    assert model.network.lm_head.weight.stride(0) == 1
