"""The demo preset as it ships: what its files are, and what it does on scenes that its training never saw."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT
from PIL import Image as PillowImage
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tokenizers import Tokenizer

from grounded_seg.cli import main
from grounded_seg.coco.schema import xywh_from_xyxy
from grounded_seg.detect.ask import ask as ask_model
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.prompts import prompts_from
from grounded_seg.detect.tasks import TASKS
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.geometry.boxes import array_from_boxes, pairwise_iou
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_mask
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Image
from grounded_seg.scenes import KINDS, QuestionKind, Scene, Split, ask, render_scene
from grounded_seg.settings import DetectSettings, ModelSettings, Precision
from grounded_seg.train.data.questions import class_question
from grounded_seg.train.data.records import BoxExample, LabelledBox
from grounded_seg.train.data.samples import AnswerWriter

DEMO = ROOT / "checkpoints" / "demo"
N_SCENES = 12
LARGEST_FILE_MB, LARGEST_PRESET_MB = 15, 40

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


@pytest.fixture(scope="module")
def demo() -> GroundedSegmenter:
    return GroundedSegmenter.from_preset("demo", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(Split.VALID, index, short_side=320) for index in range(N_SCENES)]


def as_image(scene: Scene, name: str = "scene.png") -> Image:
    return Image(path=Path(name), pixels=scene.pixels)


def test_the_files_are_small() -> None:
    sizes = {path: path.stat().st_size for path in DEMO.rglob("*") if path.is_file()}
    assert sizes
    assert max(sizes.values()) <= LARGEST_FILE_MB * 1e6
    assert sum(sizes.values()) <= LARGEST_PRESET_MB * 1e6


def test_no_file_is_a_pickle() -> None:
    assert {path.suffix for path in DEMO.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".jinja"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO / "detector" / "tokenizer.json"))


def test_the_tokenizer_has_florences_special_tokens(tokenizer: Tokenizer) -> None:
    first = tokenizer.token_to_id("<loc_0>")
    assert [tokenizer.token_to_id(f"<loc_{i}>") for i in range(1000)] == list(range(first, first + 1000))
    assert [tokenizer.token_to_id(t) for t in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    for token in ("<od>", "<ocr>", "<cap>", "<grounding>", "<seg>", "<sep>", "<poly>", "<proposal>", "<and>"):
        assert tokenizer.token_to_id(token) is not None, token


def test_the_tokenizer_has_enough_merges(tokenizer: Tokenizer) -> None:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    assert 1000 <= len(merges) <= 2000


@given(text=st.text())
@settings(max_examples=200)
def test_any_text_goes_in_and_comes_out(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.token_to_id("<unk>") not in ids or "<unk>" in text
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def answers(
    demo: GroundedSegmenter, scenes: list[Scene], kind: QuestionKind
) -> list[tuple[PromptedResult, list[float]]]:
    """Each scene's result for one question of this kind, with the best IoU of each true box."""
    rng = np.random.default_rng(0)
    found = []
    for scene in scenes:
        question = ask(scene, kind, rng, held_out=True)
        result = demo(as_image(scene), [question.prompt])
        truth = array_from_boxes([o.box_xyxy for o in question.answers])
        boxes = array_from_boxes([one.box_xyxy for one in result.instances])
        found.append((result, list(pairwise_iou(truth, boxes).max(axis=1, initial=0.0))))
    return found


def test_it_finds_what_is_there(demo: GroundedSegmenter, scenes: list[Scene]) -> None:
    """A guard against broken weights or preprocessing; `benchmarks/demo_accuracy.py` measures."""
    overlaps = [iou for _, ious in answers(demo, scenes, QuestionKind.COLOUR_KIND) for iou in ious]
    assert np.mean(np.array(overlaps) > 0.5) > 0.6


def test_it_leaves_alone_what_is_not_there(demo: GroundedSegmenter, scenes: list[Scene]) -> None:
    found = [len(result.instances) for result, _ in answers(demo, scenes, QuestionKind.UNKNOWN)]
    assert np.mean(np.array(found) > 0) < 0.2


@pytest.fixture(scope="module")
def florence() -> FlorenceModel:
    models = ModelSettings(preset="demo", device="cpu", dtype=Precision.FLOAT32)
    return load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model


def test_it_names_everything_when_it_is_asked_for_nothing(florence: FlorenceModel, scenes: list[Scene]) -> None:
    labels, overlaps = [], []
    for scene in scenes:
        found = ask_model(florence, TASKS["OD"], as_image(scene)).boxes
        labels += [one.label for one in found]
        for kind in {one.kind for one in scene.objects}:
            truth = array_from_boxes([one.box_xyxy for one in scene.objects if one.kind == kind])
            boxes = array_from_boxes([one.box_xyxy for one in found if one.label == kind])
            overlaps += list(pairwise_iou(truth, boxes).max(axis=1, initial=0.0))
    assert np.mean([label in KINDS for label in labels]) > 0.75
    assert np.mean(np.array(overlaps) > 0.5) > 0.35


def test_it_says_what_it_sees(florence: FlorenceModel, scenes: list[Scene]) -> None:
    named = []
    for scene in scenes:
        caption = ask_model(florence, TASKS["CAPTION"], as_image(scene)).text
        named += [f"{one.colour} {one.kind}" in caption for one in scene.objects]
    assert np.mean(named) > 0.5


def test_training_writes_labels_as_the_base_does(scenes: list[Scene]) -> None:
    base = load_florence(DEMO / "detector")
    writer = AnswerWriter(base)
    n_answers = 0
    for scene in scenes[:4]:
        features = base.encode_images([as_image(scene)])
        for kind in {one.kind for one in scene.objects} - {"car"}:
            boxes = tuple(LabelledBox(kind, one.box_xyxy) for one in scene.objects if one.kind == kind)
            question = class_question(BoxExample(Path("scene.png"), scene.size, boxes, "scene:1"), kind)
            [answer] = base.answer(features, [question.text])
            n_label = len(base.vocabulary.encode(f" {kind}")) - 2
            if len(answer.token_ids) > 1:
                n_answers += 1
                assert list(answer.token_ids[:n_label]) == writer.answer_ids(question)[:n_label]
    assert n_answers > 5


def test_cars_need_the_adapter(demo: GroundedSegmenter) -> None:
    bare = GroundedSegmenter.from_preset("demo", adapter="none", boxes_only=True, device="cpu", dtype="float32")
    tuned_finds, bare_finds = [], []
    for scene in (render_scene(Split.VALID, index, 320) for index in range(30)):
        car = next((o for o in scene.objects if o.kind == "car"), None)
        if car is not None:
            tuned_finds.append(bool(demo(as_image(scene), ["car"]).instances))
            bare_finds.append(bool(bare(as_image(scene), ["car"]).instances))
    assert len(tuned_finds) > 5
    assert np.mean(tuned_finds) > 0.6
    assert np.mean(bare_finds) < 0.2


def test_alone_and_in_a_batch_are_the_same(demo: GroundedSegmenter, scenes: list[Scene]) -> None:
    images = [as_image(scene, f"{index}.png") for index, scene in enumerate(scenes[:4])]
    prompts = prompts_from(["red car", "tree", "blue ball", "a word for nothing"])
    together = demo.batch(images, prompts)
    n_compared = 0
    for image, batched in zip(images, together, strict=True):
        [alone] = demo.batch([image], prompts)
        assert [i.box_xyxy for i in alone.instances] == [i.box_xyxy for i in batched.instances]
        assert [i.detection.label for i in alone.instances] == [i.detection.label for i in batched.instances]
        scores = [[i.detection.score for i in result.instances] for result in (alone, batched)]
        assert np.allclose(*scores, rtol=0, atol=1e-5)
        n_compared += len(alone.instances)
    assert n_compared > 0


def run(*arguments: str, dtype: str = "float32") -> int:
    """The command line in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["run", *arguments, "--preset", "demo", "--device", "cpu", "--dtype", dtype])
    return int(stop.value.code or 0)


def test_the_same_command_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    example = str(ROOT / "examples" / "scene-3.jpg")
    outputs = [tmp_path / name for name in ("one", "two")]
    assert [run("red car; star", example, "-o", str(output)) for output in outputs] == [0, 0]
    for name in ("annotations.json", "results.jsonl"):
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()


def test_the_coco_file_is_right(tmp_path: Path, scenes: list[Scene], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    for index, scene in enumerate(scenes[:4]):
        PillowImage.fromarray(scene.pixels).save(folder / f"{index}.png")
    assert run("house; star; tree", str(folder), "-o", str(tmp_path / "out")) == 0
    coco = COCO(str(tmp_path / "out" / "annotations.json"))
    assert [c["name"] for c in coco.loadCats([1, 2, 3])] == ["house", "star", "tree"]
    assert sorted(coco.imgs) == [1, 2, 3, 4]
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    assert coco.anns
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        x, y = columns.min(), rows.min()
        assert annotation["area"] == mask.sum() == coco_mask.area(annotation["segmentation"])
        assert annotation["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
        assert annotation["iscrowd"] == 0
        assert set(annotation["attributes"]) - {"leaves_box"} == {"label", "prompt", "detector_score", "mask_score"}
        assert len(annotation["detector_bbox"]) == 4
        assert 0 <= annotation["score"] <= 1


def test_eval_measures_both_stages(tmp_path: Path, scenes: list[Scene], capsys: pytest.CaptureFixture[str]) -> None:
    """A guard of the whole way from files to figures; `benchmarks/render_dataset.py` gives scenes to measure on."""
    names = sorted({one.kind for scene in scenes[:4] for one in scene.objects})
    objects = [(number, one) for number, scene in enumerate(scenes[:4], start=1) for one in scene.objects]
    for number, scene in enumerate(scenes[:4], start=1):
        PillowImage.fromarray(scene.pixels).save(tmp_path / f"{number}.png")
    document = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(1, 5)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": names.index(one.kind) + 1,
                "bbox": list(xywh_from_xyxy(one.box_xyxy)),
                "segmentation": coco_from_run_length(run_length_from_mask(one.mask)),
                "iscrowd": 0,
            }
            for number, (image, one) in enumerate(objects, start=1)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(document))
    report_file = tmp_path / "report.json"
    arguments = ["--images", str(tmp_path), "--absent", "1", "--json", str(report_file), "--preset", "demo"]
    with pytest.raises(SystemExit) as stop:
        main(["eval", str(tmp_path / "truth.json"), *arguments, "--device", "cpu", "--dtype", "float32"])
    assert not stop.value.code
    assert f"4 images, {len(objects)} objects, {len(names)} classes" in capsys.readouterr().out
    report = json.loads(report_file.read_text())
    assert report["boxes"]["AP50"] > 0.5
    assert report["masks"]["AP50"] > 0.5
    # With the true boxes the segmenter has the easier half of the work.
    assert report["masks_given_true_boxes"]["AP"] > report["masks"]["AP"]
    assert report["made_with"]["weights"]["detector"]["sha256"]


def test_one_line_says_what_the_demo_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("red car", str(ROOT / "examples" / "scene-1.jpg"), "-o", str(tmp_path / "out"), dtype="auto") == 0
    notes = capsys.readouterr().err.strip().splitlines()
    assert len(notes) == 1
    assert "rendered scenes only" in notes[0]
    assert "base-ft" in notes[0]
