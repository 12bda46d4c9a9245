"""Folders written for transformers: converted from the older layout, or with an adapter merged."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from older_florence import older_folder, outputs
from paths import ORIGINAL, unpacked
from PIL import Image as PillowImage
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_florence import logits, make_image, make_network, save_adapter, save_tiny_florence
from transformers import AutoProcessor, Florence2ForConditionalGeneration

from grounded_seg.cli import main
from grounded_seg.detect.model.adapters import attach_adapter
from grounded_seg.detect.model.load import load_florence, load_network
from grounded_seg.detect.model.record import write_adapter_base
from grounded_seg.detect.model.save import convert, merge_model
from grounded_seg.detect.tasks import TASKS
from grounded_seg.errors import OutputError, UsageError, WeightsError
from grounded_seg.weights.locate import LocatedWeights

GROUNDING = TASKS["CAPTION_TO_PHRASE_GROUNDING"]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return older_folder(tmp_path_factory.mktemp("older"))


@pytest.fixture(scope="module")
def converted(older: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native") / "converted"
    convert(older, folder)
    return folder


def test_a_converted_folder_answers_as_the_older_one(older: Path, converted: Path) -> None:
    features = [load_florence(folder).encode_images([make_image(1)]) for folder in (older, converted)]
    assert torch.equal(*features)
    found = load_file(converted / "model.safetensors")
    assert found["model.vision_tower.convs.0.conv.weight"].shape == (8, 3, 7, 7)
    assert (converted / "model.safetensors").stat().st_mode == (converted / "config.json").stat().st_mode


def test_transformers_own_chain_reads_a_converted_folder(converted: Path) -> None:
    processor = AutoProcessor.from_pretrained(converted, local_files_only=True)
    network = Florence2ForConditionalGeneration.from_pretrained(converted, local_files_only=True).eval()
    image, phrase, rules = make_image(1), "red car", {"num_beams": 3, "no_repeat_ngram_size": 0}
    inputs = processor(text=GROUNDING.token + phrase, images=PillowImage.fromarray(image.pixels), return_tensors="pt")
    with torch.inference_mode():
        theirs = network.generate(**inputs, max_new_tokens=24, **rules)[0, 1:].tolist()
    model = load_florence(converted)
    [ours] = model.answer(model.encode_images([image]), [GROUNDING.question(phrase)], beams=3, max_new_tokens=24)
    assert list(ours.token_ids) == theirs
    # And it can read the forms of answers that its configuration lists.
    text = "car<loc_10><loc_20><loc_300><loc_400>it<loc_1><loc_1><loc_9><loc_9>"
    said = processor.post_process_generation(text=text, task=GROUNDING.token, image_size=(1000, 1000))
    assert said[GROUNDING.token] == {"bboxes": [[10, 20, 300, 400]], "labels": ["car"]}


def test_the_converted_original_is_the_first_implementation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        convert(ORIGINAL, tmp_path / "native")
    for missing in ("tokenizer.json", "generation_config.json", "preprocessor_config.json"):
        assert f"no {missing}" in caplog.text
    expected = load_file(ORIGINAL / "expected.safetensors")
    network = Florence2ForConditionalGeneration.from_pretrained(
        tmp_path / "native", dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    words = load_file(tmp_path / "native" / "model.safetensors")["model.language_model.shared.weight"]
    assert words.dtype == torch.float16
    _, found, loss = outputs(network, expected)
    torch.testing.assert_close(found, expected["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(loss, expected["loss"][0], rtol=0, atol=1e-4)
    shutil.copy(unpacked("florence2-tokenizer/tokenizer.json"), tmp_path / "native")
    assert load_florence(tmp_path / "native").vocabulary.location_ids[0] == 50269


def test_what_is_native_already_or_in_the_way_is_refused(older: Path, converted: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="native layout already"):
        convert(converted, tmp_path / "again")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not an empty folder"):
        convert(older, tmp_path / "used")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="can't be written"):
        convert(older, tmp_path / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "used"]


@pytest.mark.parametrize("layout", ["native", "older"])
def test_a_merged_folder_answers_as_base_and_adapter_do(older: Path, tmp_path: Path, layout: str) -> None:
    base = older if layout == "older" else save_tiny_florence(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter")
    merge_model(base, adapter, tmp_path / "merged")
    expected = logits(attach_adapter(make_network(), adapter))
    found = logits(load_network(tmp_path / "merged", dtype=torch.float32).eval())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected - logits(make_network())).abs().max() > 0.1
    rules = load_florence(tmp_path / "merged").rules
    assert rules == load_florence(base).rules


def grounded(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_line_converts_and_merges(older: Path, tmp_path: Path) -> None:
    assert grounded("models", "convert", older, tmp_path / "native") == (
        0,
        f"{tmp_path / 'native'}\n",
        "",
    )
    adapter = save_adapter(tmp_path / "adapter")
    base = LocatedWeights(path=older, name="another base", revision=None, sha256="0" * 64)
    write_adapter_base(adapter, base)
    code, _, said = grounded("models", "merge", tmp_path / "native", adapter, tmp_path / "merged")
    assert (code, "was trained on another base" in said) == (4, True)
    allowed = ("--allow-base-mismatch", "--offline")
    code, printed, _ = grounded("models", "merge", tmp_path / "native", adapter, tmp_path / "merged", *allowed)
    assert (code, printed) == (0, f"{tmp_path / 'merged'}\n")
    assert grounded("models", "convert", tmp_path / "nowhere", tmp_path / "x")[0] == 4


def test_merge_takes_the_folder_of_a_training(tmp_path: Path) -> None:
    tuned, full = tmp_path / "tuned", tmp_path / "full"
    for training in (tuned, full):
        training.mkdir()
        (training / "metrics.jsonl").write_text("")
    save_adapter(tuned / "adapter")
    save_tiny_florence(full / "model")
    code, _, said = grounded("models", "merge", full, tuned, tmp_path / "merged")
    assert (code, said.count("has no record of its base")) == (0, 1)
    expected = logits(attach_adapter(make_network(), tuned / "adapter"))
    found = logits(load_network(tmp_path / "merged", dtype=torch.float32).eval())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_tokenizer_without_a_token_for_the_image_is_refused(older: Path, tmp_path: Path) -> None:
    shutil.copytree(older, tmp_path / "older")
    path = tmp_path / "older" / "tokenizer.json"
    text = path.read_text(encoding="utf-8").replace("<image>", "<imago>").replace("<mask>", "<masc>")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match="neither <image> nor <mask>"):
        convert(tmp_path / "older", tmp_path / "native")


@pytest.mark.parametrize("kind", [Exception, SafetensorError])
def test_a_full_disk_is_told_whichever_library_meets_it(
    older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise kind("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("grounded_seg.detect.model.save._save_network", full)
    with pytest.raises(OutputError, match=r"new can't be written \(No space left on device\)"):
        convert(older, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
