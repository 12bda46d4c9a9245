"""The configurations of segmenters, field by field: numbers that can't be are refused before memory is taken."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from paths import DEMO
from tiny_transformers_sam import build, processor_of

from grounded_seg.errors import WeightsError
from grounded_seg.segment.load import load_network
from grounded_seg.segment.sam2_fields import Sam2Fields
from grounded_seg.segment.sam_fields import SamFields, SamHqFields
from grounded_seg.weights.config_records import record_of

CPU = torch.device("cpu")
FAMILIES = {
    "sam": (SamFields, transformers.SamConfig, transformers.SamModel),
    "sam_hq": (SamHqFields, transformers.SamHQConfig, transformers.SamHQModel),
    "sam2": (Sam2Fields, transformers.Sam2Config, transformers.Sam2Model),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name in FAMILIES:
        made[name] = tmp_path_factory.mktemp(name)
        build(name).save_pretrained(made[name])
        processor_of(name).image_processor.save_pretrained(made[name])
    return made


def broken(good: Path, folder: Path, part: str, values: dict[str, Any], name: str = "config.json") -> Path:
    shutil.copytree(good, folder)
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    inner = content
    for key in part.split(".") if part else ():
        inner = inner[key]
    inner |= values
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "part", "values", "told"),
    [
        ("sam", "vision_config", {"num_hidden_layers": 10**9}, "vision_config.num_hidden_layers"),
        ("sam", "vision_config", {"num_hidden_layers": 100, "hidden_size": 8192}, "parameters, its weights are"),
        ("sam", "vision_config", {"num_attention_heads": 5}, "hidden_size is 32, which num_attention_heads"),
        ("sam", "vision_config", {"hidden_act": "owner/name"}, "vision_config.hidden_act"),
        ("sam", "vision_config", {"image_size": 10**6}, "vision_config.image_size"),
        ("sam", "vision_config", {"image_size": 256}, "images or patches of different sizes"),
        ("sam", "vision_config", {"patch_size": 0}, "vision_config.patch_size"),
        ("sam", "vision_config", {"num_pos_feats": 3}, "num_pos_feats is 3"),
        ("sam", "prompt_encoder_config", {"hidden_size": 64}, "channels wide, not equally"),
        ("sam", "mask_decoder_config", {"num_attention_heads": 0}, "mask_decoder_config.num_attention_heads"),
        ("sam", "mask_decoder_config", {"mlp_dim": 1e308}, "mask_decoder_config.mlp_dim"),
        ("sam", "", {"vision_config": [1]}, "vision_config"),
        ("sam_hq", "mask_decoder_config", {"vit_dim": -1}, "mask_decoder_config.vit_dim"),
        ("sam2", "vision_config", {"fpn_hidden_size": 10**9}, "vision_config.fpn_hidden_size"),
        ("sam2", "vision_config.backbone_config", {"blocks_per_stage": [1, 1]}, "blocks_per_stage has 2 items"),
        ("sam2", "vision_config.backbone_config", {"blocks_per_stage": [100, 100, 100, 100]}, "its weights are"),
        ("sam2", "vision_config.backbone_config", {"window_size_per_stage": [0, 1, 1, 1]}, "no block or no window"),
        ("sam2", "vision_config", {"backbone_channel_list": [1, 2, 3, 4]}, "from last to first"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_that_can_not_be_is_refused_by_name(
    folders: dict[str, Path], tmp_path: Path, name: str, part: str, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(WeightsError, match=told) as refused:
        load_network(broken(folders[name], tmp_path / "bad", part, values), CPU, torch.float32)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"size": {"longest_edge": 64}}, r"resizes images to \[64\] px, the model takes 128"),
        ({"size": {"longest_edge": 10**9}}, "size"),
        ({"image_std": [0, 1, 1]}, "image_std"),
        ({"resample": 77}, "resample"),
        ({"rescale_factor": 1e300}, "rescale_factor"),
    ],
    ids=str,
)
def test_a_preparation_of_images_that_can_not_be_is_refused(
    folders: dict[str, Path], tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    bad = broken(folders["sam"], tmp_path / "bad", "", values, "preprocessor_config.json")
    with pytest.raises(WeightsError, match=told):
        load_network(bad, CPU, torch.float32)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"decoder_depth": 10**9}, "decoder_depth: Expected `int` <= 100"),
        ({"decoder_mlp_dim": 1e308}, "decoder_mlp_dim"),
        ({"encoder_num_heads": True}, "encoder_num_heads"),
        ({"encoder_global_attn_indexes": ["a"]}, "encoder_global_attn_indexes"),
        ({"image_size": 10**6}, "image_size"),
        ({"\x1b[31m": 1}, r"missing or unknown: \\x1b\[31m"),
        ({"model_type": "\x1b"}, r"holds a model of type .*x1b"),
    ],
    ids=str,
)
def test_our_own_sizes_are_held_to_their_ranges(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    with pytest.raises(WeightsError, match=told) as refused:
        load_network(broken(DEMO / "segmenter", tmp_path / "bad", "", values), CPU, torch.float32)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_defaults_and_the_number_of_parameters_are_those_of_transformers(name: str) -> None:
    kind, config_class, model_class = FAMILIES[name]
    fields: Any = record_of(kind, {})
    config = config_class()
    for part in ("vision_config", "prompt_encoder_config", "mask_decoder_config"):
        own, theirs = getattr(fields, part), getattr(config, part)
        for key in own.__dataclass_fields__:
            if key not in ("backbone_config", "mlp_dim"):
                assert getattr(theirs, key) in (getattr(own, key), tuple(_listed(getattr(own, key)))), (part, key)
    with torch.device("meta"):
        model = model_class(config)
    n_here = sum(one.numel() for one in model.parameters())
    n_described = fields.vision_config.n_parameters + fields.mask_decoder_config.n_parameters
    assert n_described == pytest.approx(n_here, rel=0.3)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
