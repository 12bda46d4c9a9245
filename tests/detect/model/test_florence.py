import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import unpacked
from PIL import Image as PillowImage
from safetensors.torch import load_file, save_file
from tiny_florence import (
    MAX_POSITIONS,
    N_IMAGE_TOKENS,
    SIDE,
    WIDTH,
    logits,
    make_image,
    make_network,
    make_processor,
    save_adapter,
    save_tiny_florence,
)
from transformers import CLIPImageProcessor

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.pixels import PixelSettings, load_pixel_settings, pixel_values
from grounded_seg.detect.model.vocabulary import Vocabulary, load_tokenizer
from grounded_seg.detect.tasks import TASKS
from grounded_seg.errors import UsageError, WeightsError

GROUNDING = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
PHRASES = ("red car", "a traffic light behind the second tree", "café 犬")
IMAGES = (make_image(1), make_image(2, 64, 200), make_image(3, 300, 90))
N_TOKENS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("florence"))


@pytest.fixture(scope="module")
def model(folder: Path) -> FlorenceModel:
    return load_florence(folder)


def usual_chain(phrase: str, image_number: int, beams: int, no_repeat_ngram_size: int = 0) -> list[int]:
    """transformers' processor and `generate`, one image and one question at a time."""
    image = PillowImage.fromarray(IMAGES[image_number].pixels)
    inputs = make_processor()(text=GROUNDING.token + phrase, images=image, return_tensors="pt")
    with torch.inference_mode():
        sequences = make_network().generate(
            **inputs,
            num_beams=beams,
            do_sample=False,
            max_new_tokens=N_TOKENS,
            no_repeat_ngram_size=no_repeat_ngram_size,
            early_stopping=beams > 1,
        )
    return sequences[0, 1:].tolist()


def test_pixels_are_those_of_the_usual_processor() -> None:
    settings = PixelSettings(height=SIDE, width=SIDE + 32)
    theirs = CLIPImageProcessor(
        size={"height": settings.height, "width": settings.width},
        do_center_crop=False,
        image_mean=settings.mean,
        image_std=settings.deviation,
    )
    expected = theirs(images=[PillowImage.fromarray(image.pixels) for image in IMAGES], return_tensors="pt")
    found = pixel_values(IMAGES, settings)
    assert found.shape == (3, 3, SIDE, SIDE + 32)
    # A hundredth of a grey level.
    torch.testing.assert_close(found, expected["pixel_values"], rtol=0, atol=0.01 / 255)


def test_read_only_pixels_are_fine() -> None:
    image = make_image(5)
    image.pixels.setflags(write=False)
    assert pixel_values([image], PixelSettings(SIDE, SIDE)).shape == (1, 3, SIDE, SIDE)


def test_the_image_configuration_is_found_in_either_file(folder: Path, tmp_path: Path) -> None:
    assert load_pixel_settings(folder) == PixelSettings(SIDE, SIDE)
    own = {"size": {"height": 32, "width": 64}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own), encoding="utf-8")
    assert load_pixel_settings(tmp_path) == PixelSettings(32, 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own | {"resample": 2}), encoding="utf-8")
    with pytest.raises(WeightsError, match="bicubic"):
        load_pixel_settings(tmp_path)


def test_a_missing_image_configuration_is_filled_in_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_pixel_settings(tmp_path) == PixelSettings(768, 768)
    assert "768 x 768" in caplog.text


@pytest.mark.parametrize("beams", [1, 3])
def test_tokens_are_those_of_the_usual_chain(model: FlorenceModel, beams: int) -> None:
    features = model.encode_images(IMAGES)
    answers = model.answer(features, [GROUNDING.question(p) for p in PHRASES], beams=beams, max_new_tokens=N_TOKENS)
    expected = [usual_chain(phrase, number, beams) for number, phrase in enumerate(PHRASES)]
    assert [list(answer.token_ids) for answer in answers] == expected
    # Not a comparison of one thing with itself: the published rule against repetition would show.
    assert usual_chain(PHRASES[0], 0, beams, no_repeat_ngram_size=3) != expected[0]


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_does_not_depend_on_its_neighbours(model: FlorenceModel, beams: int) -> None:
    questions = [GROUNDING.question(phrase) for phrase in PHRASES]
    together = model.answer(model.encode_images(IMAGES), questions, beams=beams, max_new_tokens=N_TOKENS)
    for image, question, expected in zip(IMAGES, questions, together, strict=True):
        [alone] = model.answer(model.encode_images([image]), [question], beams=beams, max_new_tokens=N_TOKENS)
        assert alone.token_ids == expected.token_ids
        for name in ("log_probabilities", "location_probabilities"):
            found, wanted = getattr(alone.evidence, name), getattr(expected.evidence, name)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_evidence_is_the_softmax_of_the_whole_model(model: FlorenceModel, beams: int) -> None:
    question = GROUNDING.question(PHRASES[0])
    [answer] = model.answer(model.encode_images(IMAGES[:1]), [question], beams=beams, max_new_tokens=N_TOKENS)
    image = PillowImage.fromarray(IMAGES[0].pixels)
    inputs = make_processor()(text=GROUNDING.token + PHRASES[0], images=image, return_tensors="pt")
    with torch.inference_mode():
        logits = make_network()(**inputs, decoder_input_ids=torch.tensor([[2, *answer.token_ids[:-1]]])).logits[0]
    probabilities = logits.softmax(dim=1).numpy()
    n_tokens = len(answer.token_ids)
    assert answer.evidence.location_probabilities.shape == (n_tokens, 1000)
    chosen = probabilities[np.arange(n_tokens), answer.token_ids]
    np.testing.assert_allclose(np.exp(answer.evidence.log_probabilities), chosen, atol=1e-5)
    locations = probabilities[:, list(model.vocabulary.location_ids)]
    np.testing.assert_allclose(answer.evidence.location_probabilities, locations, atol=1e-5)


def test_the_vision_tower_runs_once_for_all_questions(model: FlorenceModel) -> None:
    seen: list[int] = []
    hook = model.network.model.vision_tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    try:
        features = model.encode_images(IMAGES[:2])
        model.answer(features[[0, 0, 1, 1]], [GROUNDING.question(p) for p in "abcd"], max_new_tokens=4)
    finally:
        hook.remove()
    assert seen == [2]
    assert features.shape == (2, N_IMAGE_TOKENS, WIDTH)


def test_an_answer_ends_where_the_decoder_has_no_more_positions(model: FlorenceModel) -> None:
    [answer] = model.answer(model.encode_images(IMAGES[:1]), [TASKS["OD"].question()])
    assert len(answer.token_ids) <= MAX_POSITIONS


def test_a_question_longer_than_the_model_is_refused(model: FlorenceModel) -> None:
    with pytest.raises(UsageError, match=f"too long.*takes {MAX_POSITIONS - N_IMAGE_TOKENS}"):
        model.answer(model.encode_images(IMAGES[:1]), ["x" * 200])


def test_questions_are_encoded_as_the_first_code_did() -> None:
    vocabulary = Vocabulary(load_tokenizer(unpacked("florence2-tokenizer/tokenizer.json").parent))
    for case in json.loads(unpacked("florence2-parses.json").read_text(encoding="utf-8"))["prompts"]:
        token, _, phrase = case["prompt"].partition(">")
        question = TASKS[token.removeprefix("<")].question(phrase)
        assert question == case["text"]
        assert vocabulary.encode(question) == case["ids"]
    # Its file cuts texts at 800 tokens; ours only ever refuses.
    assert len(vocabulary.encode("x y " * 1000)) > 1500
    assert vocabulary.location_ids[0] == 50269


def changed(folder: Path, target: Path, **tensors: torch.Tensor | None) -> Path:
    """A copy of the model with tensors replaced or, where None, left out."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    for name, tensor in tensors.items():
        weights.pop(name, None)
        if tensor is not None:
            weights[name] = tensor
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


PROJECTION = "model.multi_modal_projector.image_projection.weight"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({PROJECTION: None}, f"1 missing: {PROJECTION}"),
        ({"model.extra.weight": torch.zeros(2)}, r"1 unexpected: model\.extra\.weight"),
        ({PROJECTION: torch.zeros(3, 3)}, f"1 of another shape: {PROJECTION}"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, tmp_path: Path, tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        load_florence(changed(folder, tmp_path / "changed", **tensors))
    assert "\n" not in str(caught.value)


def test_the_tied_head_may_be_stored_once_or_twice(folder: Path, tmp_path: Path, model: FlorenceModel) -> None:
    shared = load_file(folder / "model.safetensors")["model.language_model.shared.weight"]
    twice = load_florence(changed(folder, tmp_path / "twice", **{"lm_head.weight": shared.clone()}))
    assert twice.network.lm_head.weight is twice.network.model.language_model.shared.weight
    assert torch.equal(twice.network.lm_head.weight, model.network.lm_head.weight)


def broken(folder: Path, target: Path, name: str, text: str | None) -> Path:
    shutil.copytree(folder, target)
    (target / name).unlink(missing_ok=True)
    if text is not None:
        (target / name).write_text(text, encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "config.json"),
        ("config.json", "{", "config.json"),
        ("config.json", "[]", "is no JSON object"),
        ("config.json", '{"model_type": "bert", "vision_config": {}}', "'bert'"),
        (
            "config.json",
            '{"model_type": "florence2", "vision_config": {"dim_embed": [1]}}',
            "isn't that of a Florence-2",
        ),
        ("tokenizer.json", None, "tokenizer.json"),
        ("tokenizer.json", "{}", "tokenizer.json"),
        ("tokenizer.json", "1", "can't be read as a tokenizer"),
        ("tokenizer.json", '{"model": {"type": "of tomorrow"}}', "can't be read as a tokenizer"),
        ("model.safetensors", None, "has no weights: none of model.safetensors"),
        ("model.safetensors", "not tensors", "can't be read as weights"),
        ("generation_config.json", "{", "generation_config.json can't be read"),
        ("processor_config.json", "{}", "image configuration"),
        ("preprocessor_config.json", "[]", "image configuration"),
    ],
)
def test_a_folder_that_is_not_a_whole_florence_is_refused_in_one_line(
    folder: Path, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        load_florence(broken(folder, tmp_path / "broken", name, text))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_locations_is_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8").replace("<loc_7>", "<lok_7>")
    with pytest.raises(WeightsError, match="<loc_7>"):
        load_florence(broken(folder, tmp_path / "lok", "tokenizer.json", text))


def test_an_adapter_that_lies_in_the_folder_is_not_looked_at(
    folder: Path, tmp_path: Path, model: FlorenceModel
) -> None:
    shutil.copytree(folder, tmp_path / "both")
    save_adapter(tmp_path / "both")
    network = load_florence(tmp_path / "both").network
    assert network.state_dict().keys() == model.network.state_dict().keys()
    torch.testing.assert_close(logits(network), logits(model.network), rtol=0, atol=0)


def test_missing_rules_of_generation_are_filled_in_and_said(
    folder: Path, tmp_path: Path, model: FlorenceModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = load_florence(broken(folder, tmp_path / "bare", "generation_config.json", None))
    assert "no generation_config.json" in caplog.text
    assert found.rules == model.rules


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_florence(folder)
    assert capfd.readouterr() == ("", "")
