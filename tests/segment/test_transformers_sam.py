"""SAM, SAM-HQ and SAM 2 in transformers' layout: the masks of transformers' own processor and model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_sam import random_detections, random_image
from tiny_transformers_sam import build, processor_of

from grounded_seg.device.kernels import SCORES_AT_A_TIME, AttentionKernel, Kernels, LinearKernel
from grounded_seg.errors import WeightsError
from grounded_seg.geometry.masks import mask_from_run_length
from grounded_seg.records import ImageSize
from grounded_seg.segment import load_segmenter
from grounded_seg.segment.load import load_network
from grounded_seg.settings import SegmentSettings

CPU = torch.device("cpu")
SIZES = [ImageSize(150, 97), ImageSize(97, 150), ImageSize(128, 128)]


@pytest.fixture(scope="module", params=["sam", "sam_hq", "sam2", "sam2_video"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name)
    build(name).save_pretrained(path)
    assert json.loads((path / "config.json").read_text())["model_type"] == name
    processor_of(name).image_processor.save_pretrained(path)
    return path


def image_model(name: str, folder: Path) -> Any:
    """The model that takes single images, which is a part of the one for videos, loaded by transformers itself."""
    return transformers.Sam2Model.from_pretrained(folder).eval() if name == "sam2_video" else build(name)


@torch.inference_mode()
def expected_masks(name: str, folder: Path, image: Any, found: Any, multimask: bool) -> tuple[Any, Any]:
    """Masks (n, masks, height, width) and scores (n, masks), all by transformers."""
    processor = processor_of(name)
    boxes = [[list(one.box_xyxy) for one in found]]
    inputs = processor(images=image.pixels, input_data_format="channels_last", input_boxes=boxes, return_tensors="pt")
    inputs["input_boxes"] = inputs["input_boxes"].float()
    sizes = [inputs.pop(key) for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
    outputs = image_model(name, folder)(**inputs, multimask_output=multimask)
    masks = processor.post_process_masks(outputs.pred_masks, *sizes)
    return masks[0].numpy(), outputs.iou_scores[0].numpy()


@pytest.mark.parametrize("multimask", [False, True])
def test_masks_and_scores_are_those_of_transformers(name: str, folder: Path, multimask: bool) -> None:
    segmenter = load_segmenter(folder, CPU, torch.float32, SegmentSettings(multimask=multimask))
    for size in SIZES:
        image, found = random_image(size), random_detections(size, 4)
        masks, scores = expected_masks(name, folder, image, found, multimask)
        (segmented,) = segmenter.segment([image], [found])
        made = {one.detection: one for one in segmented.instances}
        for detection, some, some_scores in zip(found, masks, scores, strict=True):
            best = int(some_scores.argmax())
            one = made.get(detection)
            mask = np.zeros_like(some[best]) if one is None or one.mask is None else mask_from_run_length(one.mask)
            assert np.mean(mask == some[best]) >= 0.9999
            if one is not None:
                assert one.mask_score == pytest.approx(np.clip(some_scores[best], 0, 1), abs=1e-3)


@pytest.mark.parametrize("height", [1, 3, 4])
@torch.inference_mode()
def test_an_image_of_few_rows_is_not_taken_for_one_whose_colours_come_first(
    name: str, folder: Path, height: int
) -> None:
    image = random_image(ImageSize(60, height))
    [embedding] = load_network(folder, CPU, torch.float32).encode([image])
    # A picture of Pillow's leaves no doubt.
    inputs = processor_of(name)(images=PIL.Image.fromarray(image.pixels), return_tensors="pt")
    expected = image_model(name, folder).get_image_embeddings(inputs["pixel_values"])
    first = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(embedding["image_embeddings"], first, rtol=0, atol=1e-4)


def test_a_gpu_resizes_to_what_the_processor_makes(name: str, folder: Path) -> None:
    network: Any = load_network(folder, CPU, torch.float32)
    images = [random_image(size) for size in (*SIZES, ImageSize(300, 77), ImageSize(60, 1), ImageSize(3, 700))]
    found, expected = network.squares_there(images), network._squares_here(images)
    assert found.shape == (6, 3, 128, 128)
    assert torch.equal(found, expected)


@torch.inference_mode()
def test_segment_anything_2_attends_in_blocks_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build("sam2").save_pretrained(tmp_path)
    image = random_image(SIZES[0])
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        monkeypatch.setitem(SCORES_AT_A_TIME, dtype, 300)
        fused, blocked = (
            load_network(tmp_path, CPU, dtype, kernels=Kernels("any", one, one, LinearKernel.TORCH, LinearKernel.TORCH))
            for one in AttentionKernel
        )
        expected, found = (one.encode([image])[0]["image_embeddings"] for one in (fused, blocked))
        assert len(found) == len(expected) == 3
        for level, right in zip(found, expected, strict=True):
            assert not torch.equal(level, right)
            torch.testing.assert_close(level, right, rtol=0, atol=bound * float(right.abs().max()))


def test_an_adapter_in_the_folder_is_not_looked_at(name: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "else/where"}')
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "adapter_model.safetensors")
    image, found = random_image(SIZES[0]), random_detections(SIZES[0], 2)
    alone, beside = (
        load_segmenter(where, CPU, torch.float32).segment([image], [found]) for where in (folder, tmp_path)
    )
    assert alone == beside


def test_weights_in_several_files_are_read_by_their_index(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {key: f"part-{place % 2}.safetensors" for place, key in enumerate(names)}
    for file in set(files.values()):
        save_file({key: tensors[key] for key in names if files[key] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    image, found = random_image(SIZES[0]), random_detections(SIZES[0], 2)
    whole, parts = (load_segmenter(where, CPU, torch.float32).segment([image], [found]) for where in (folder, tmp_path))
    assert whole == parts


def test_batches_and_half_precision_change_little(folder: Path) -> None:
    images = [random_image(size, seed) for seed, size in enumerate(SIZES)]
    found = [random_detections(size, 3, seed) for seed, size in enumerate(SIZES)]
    segmenter = load_segmenter(folder, CPU, torch.float32)
    half = load_segmenter(folder, CPU, torch.bfloat16)
    alone = [segmenter.segment([image], [boxes])[0] for image, boxes in zip(images, found, strict=True)]
    for whole, least in ((segmenter.segment(images, found), 0.9999), (half.segment(images, found), 0.9)):
        for one, other in zip(whole, alone, strict=True):
            for first, second in zip(one.instances, other.instances, strict=True):
                assert first.mask is not None and second.mask is not None  # noqa: PT018
                assert np.mean(mask_from_run_length(first.mask) == mask_from_run_length(second.mask)) >= least


def test_a_missing_tensor_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(key for key in tensors if key.startswith("mask_decoder.iou_token"))
    save_file({key: tensor for key, tensor in tensors.items() if key != gone}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"Tensors 1 missing: mask_decoder\.iou_token"):
        load_segmenter(tmp_path, CPU, torch.float32)


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match=r"type 'bert', not a segmenter; .* segment-anything, sam, sam_hq, sam2"):
        load_segmenter(tmp_path, CPU, torch.float32)


def test_a_folder_without_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(WeightsError, match=r"has no weights: none of model\.safetensors"):
        load_segmenter(tmp_path, CPU, torch.float32)
