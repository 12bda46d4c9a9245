"""The sizes of a `Sam`, and its way to the disk and back."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from tiny_sam import SMALL

from grounded_seg.errors import WeightsError
from grounded_seg.segment.sam.build import SamConfig, build_sam, load_sam, save_sam


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_sam(build_sam(SMALL), SMALL, tmp_path / "sam")
    return tmp_path / "sam"


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_tensors(folder: Path, *, drop: tuple[str, ...] = (), add: tuple[str, ...] = ()) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items() if name not in drop}
    save_file({**tensors, **{name: torch.zeros(1) for name in add}}, path)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_published_sizes_are_those_of_segment_anything_itself(name: str) -> None:
    with torch.device("meta"):
        ours = build_sam(getattr(SamConfig, name)())
        official = sam_model_registry[name]()
    shapes = {key: tensor.shape for key, tensor in official.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
    # The printed modules also show what has no weights: strides, epsilons, activations.
    assert str(ours) == str(official)
    assert [block.window_size for block in ours.image_encoder.blocks] == [
        block.window_size for block in official.image_encoder.blocks
    ]
    assert ours.mask_decoder.transformer.layers[0].self_attn.num_heads == 8
    assert torch.equal(ours.pixel_mean, official.pixel_mean)
    assert torch.equal(ours.pixel_std, official.pixel_std)
    assert not ours.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 65}, "image_size is 65, it must be a multiple of patch_size"),
        ({"encoder_num_heads": 3}, "encoder_embed_dim is 32"),
        ({"prompt_embed_dim": 12}, "prompt_embed_dim is 12"),
        ({"patch_size": 0}, "patch_size"),
        ({"encoder_global_attn_indexes": (3,)}, "encoder_global_attn_indexes"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_saved_and_loaded_is_the_same_model(folder: Path) -> None:
    torch.manual_seed(0)
    built, loaded = build_sam(SMALL), load_sam(folder)
    pixels = torch.rand(1, 3, SMALL.image_size, SMALL.image_size)
    assert torch.equal(built.image_encoder(pixels), loaded.image_encoder(pixels))
    assert {tensor.device.type for tensor in [*loaded.state_dict().values(), *loaded.buffers()]} == {"cpu"}
    assert torch.equal(loaded.pixel_mean, built.pixel_mean)
    assert torch.equal(loaded.pixel_std, built.pixel_std)
    assert not loaded.training


def test_half_precision_on_disk_stays_half(tmp_path: Path) -> None:
    save_sam(build_sam(SMALL).half(), SMALL, tmp_path)
    assert {tensor.dtype for tensor in load_sam(tmp_path).state_dict().values()} == {torch.float16}


@pytest.mark.parametrize("zipped", [True, False])
def test_official_file_is_recognised_by_its_tensors_not_its_name(tmp_path: Path, zipped: bool) -> None:
    with torch.device("meta"):
        sam = build_sam(SamConfig.vit_b())
    # Expanded from one number each, 375 MB of weights fit into a small file.
    tensors = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in sam.state_dict().items()}
    path = tmp_path / "sam_vit_h_4b8939.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 1_000_000
    loaded = load_sam(path)
    assert len(loaded.image_encoder.blocks) == 12
    assert loaded.image_encoder.pos_embed.shape == (1, 64, 64, 768)


def test_safetensors_file_of_an_unknown_width_asks_for_a_folder(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"width 32, which is none of ViT-B, L and H .*config\.json"):
        load_sam(folder / "model.safetensors")


def test_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not a Segment Anything model"):
        load_sam(tmp_path / "other.pth")


def test_missing_tensors_are_named(folder: Path) -> None:
    edit_tensors(folder, drop=("mask_decoder.iou_token.weight",))
    with pytest.raises(WeightsError, match=r"Tensors 1 missing: mask_decoder\.iou_token\.weight$"):
        load_sam(folder)


def test_many_missing_tensors_are_counted(folder: Path) -> None:
    edit_tensors(
        folder, drop=tuple(f"image_encoder.blocks.0.norm{n}.{part}" for n in (1, 2) for part in ("weight", "bias"))
    )
    with pytest.raises(WeightsError, match=r"4 missing: image_encoder\.blocks\.0\.norm1\.bias, .* and 1 more$"):
        load_sam(folder)


def test_unexpected_tensors_are_named(folder: Path) -> None:
    edit_tensors(folder, add=("mask_decoder.hf_token.weight",))
    with pytest.raises(WeightsError, match=r"1 unexpected: mask_decoder\.hf_token\.weight$"):
        load_sam(folder)


def test_tensors_of_another_shape_are_named(folder: Path) -> None:
    edit_config(folder, decoder_mlp_dim=32)
    with pytest.raises(WeightsError, match=r"of another shape: mask_decoder\.transformer\.layers\.0\.mlp\.lin1\.bias"):
        load_sam(folder)


class Payload:
    """Unpickled carelessly, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "it ran"
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save({"image_encoder.pos_embed": Payload(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="a pickle can run code"):
        load_sam(path)
    assert not trace.exists()


def test_plain_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    (tmp_path / "sam.pth").write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(WeightsError, match="a pickle can run code"):
        load_sam(tmp_path / "sam.pth")
    assert not trace.exists()


@pytest.mark.parametrize("content", [{"model": {"a": torch.zeros(1)}}, [torch.zeros(1)]], ids=["nested", "list"])
def test_file_that_is_no_table_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "sam.pth")
    with pytest.raises(WeightsError, match="isn't a plain table of named tensors"):
        load_sam(tmp_path / "sam.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_damaged_file_is_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"sam{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_sam(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["missing.pth", "missing-folder"])
def test_missing_source_is_named(tmp_path: Path, source: str) -> None:
    with pytest.raises(WeightsError, match=f"{source} is missing"):
        load_sam(tmp_path / source)


def test_folder_without_config_says_what_it_holds(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json is missing: .* model\.safetensors"):
        load_sam(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "sam2"}, "model_type 'sam2'"),
        ({"decoder_depth": None}, "missing or unknown: decoder_depth"),
        ({"use_rel_pos": True}, "missing or unknown: use_rel_pos"),
        ({"encoder_num_heads": 5}, "encoder_embed_dim is 32"),
        ({"encoder_depth": "two"}, "doesn't describe"),
        ({"encoder_global_attn_indexes": 1}, "doesn't describe"),
    ],
)
def test_config_that_does_not_describe_a_model_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(WeightsError, match=message):
        load_sam(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\ufeff"])
def test_config_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_sam(folder)
