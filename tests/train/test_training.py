"""Whole trainings of a tiny model: loss sequences, resuming after an interruption, and what is left in the folder."""

import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from older_florence import older_folder
from paths import DATA
from peft import PeftModel
from tiny_florence import make_network, save_tiny_florence
from torch.nn import functional
from train_cases import coco_document, od_row, paint_images, read_data, tiny_settings, write_coco, write_jsonl

from grounded_seg.detect.detector import load_detector
from grounded_seg.detect.model.adapters import attach_adapter, merge_adapter
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.pixels import pixel_values, resized_to_square
from grounded_seg.errors import InputError, UsageError
from grounded_seg.images.read import read_image
from grounded_seg.records import ImageSize
from grounded_seg.settings import DetectSettings
from grounded_seg.train import TrainSettings, evaluate, train
from grounded_seg.train.data.questions import class_question, positive_questions
from grounded_seg.train.data.records import BoxExample, LabelledBox, TextExample
from grounded_seg.train.data.samples import AnswerWriter, Collator, ImageStore, Sample, without_long_rows
from grounded_seg.train.fit.trainable import locate_base, make_trainable
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.settings import Logger, Method, Part, PromptForm
from grounded_seg.weights.locate import LocatedWeights

STEPS = 5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def steady(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base without any dropout of its own, so that how questions are put together changes nothing."""
    folder = tmp_path_factory.mktemp("steady") / "base"
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def spaced(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base, saying that it puts a space before each label."""
    folder = tmp_path_factory.mktemp("spaced") / "base"
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"space_before_labels": True}))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data")).parent


@pytest.fixture(scope="module")
def trained(base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """A finished training of two epochs with two steps each, and a checkpoint at every step."""
    settings = tiny_settings(dataset, tmp_path_factory.mktemp("trained") / "run", base, save_steps=1, dropout=0.1)
    train(settings)
    return settings


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_the_first_losses_are_the_stored_ones(steady: Path, dataset: Path, tmp_path: Path) -> None:
    """Stored from this test's own run; without any dropout the first one is the untuned model's cross-entropy."""
    train(tiny_settings(dataset, tmp_path / "run", steady, max_steps=STEPS, dropout=0.0))
    stored = json.loads((DATA / "train_losses.json").read_text())
    assert losses(tmp_path / "run") == pytest.approx(stored, abs=2e-4)


def test_a_resumed_run_has_the_same_losses(trained: TrainSettings, tmp_path: Path) -> None:
    """From the end of an epoch, from the middle of one, and where only the report was missing."""
    whole = losses(trained.output)
    assert len(whole) == 4
    for step in (2, 3, 4):
        run = tmp_path / f"from-{step}"
        shutil.copytree(trained.output, run)
        # As a kill leaves it: later lines are written, later checkpoints cut off or not there.
        for checkpoint in (run / "checkpoints").iterdir():
            if int(checkpoint.name.rpartition("-")[2]) > step:
                (checkpoint / "trainer_state.json").write_text('{"global_step": ')
        manifest = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
        train(TrainSettings(**{**_fields(trained), "output": run}), resume=True)
        assert losses(run) == pytest.approx(whole, abs=1e-6)
        assert json.loads((run / "run.json").read_text())["status"] == "done"


def test_a_finished_training_that_is_resumed_is_left_untouched(
    trained: TrainSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.output, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr(logging.getLogger("grounded_seg"), "propagate", True)
    with caplog.at_level(logging.INFO, "grounded_seg"):
        report = train(TrainSettings(**{**_fields(trained), "output": run}), resume=True)
    assert "is finished already; nothing is left to do" in caplog.text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert report.n_steps == 4
    assert report.seconds == json.loads((run / "run.json").read_text())["seconds"]


def test_the_seconds_are_those_of_the_whole_training(trained: TrainSettings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.output, run)
    manifest = json.loads((run / "run.json").read_text())
    # As a kill leaves it after the third step, an hour from the start.
    (run / "run.json").write_text(json.dumps(manifest | {"status": "running", "seconds": 3600.0}))
    (run / "checkpoints" / "checkpoint-4" / "trainer_state.json").unlink()
    report = train(TrainSettings(**{**_fields(trained), "output": run}), resume=True)
    seconds = json.loads((run / "run.json").read_text())["seconds"]
    assert 3600 < seconds <= report.seconds < 3700


def test_each_checkpoint_says_how_long_it_took(base: Path, dataset: Path, tmp_path: Path) -> None:
    settings = tiny_settings(dataset, tmp_path / "run", base, save_steps=1, max_steps=2)
    folder, seen = TrainFolder(settings.output), []

    def look(row: Any) -> None:
        if "loss" in row:
            seen.append(folder.seconds_so_far())

    train(settings, watcher=look)
    assert 0 < seen[0] < seen[1] < folder.seconds_so_far()


def _fields(settings: TrainSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_another_setting_is_not_gone_on_with(trained: TrainSettings) -> None:
    with pytest.raises(UsageError, match="other settings or data: lr, rank"):
        train(TrainSettings(**{**_fields(trained), "rank": 2, "lr": 1.0}), resume=True)
    with pytest.raises(UsageError, match="already holds adapter"):
        train(trained)


def test_nothing_to_go_on_with_is_said(base: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training to resume"):
        train(tiny_settings(dataset, tmp_path / "nothing", base), resume=True)


def test_the_folder_holds_all_it_should(trained: TrainSettings) -> None:
    names = {path.name for path in trained.output.iterdir()}
    assert {"adapter", "metrics.jsonl", "loss.png", "run.json", "checkpoints"} <= names
    manifest = json.loads((trained.output / "run.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["data"]["images"] == {"train": 4, "valid": 1, "test": 1}
    record = json.loads((trained.output / "adapter" / "grounded_seg.json").read_text())
    assert record["classes"] == ["red", "green"]
    assert record["prompt_form"] == "class"
    assert record["base"]["sha256"] == manifest["base"]["sha256"]
    # The last ones are kept, as many as asked.
    assert {path.name for path in (trained.output / "checkpoints").iterdir()} == {
        "checkpoint-2",
        "checkpoint-3",
        "checkpoint-4",
    }
    # No base weights beside the adapter's.
    assert not [path for path in trained.output.rglob("*.safetensors") if path.name != "adapter_model.safetensors"]


def test_plain_peft_loads_the_adapter_and_merging_changes_nothing(trained: TrainSettings) -> None:
    adapter, folder = trained.output / "adapter", Path(str(trained.models.detector))
    ids = torch.arange(300, 310)[None]
    outputs = []
    plain = PeftModel.from_pretrained(load_florence(folder).network, adapter).eval()
    beside = attach_adapter(load_florence(folder).network, adapter)
    merged = merge_adapter(load_florence(folder).network, adapter)
    bare = load_florence(folder).network
    for network in (plain, beside, merged, bare):
        with torch.inference_mode():
            outputs.append(network(inputs_embeds=bare.get_input_embeddings()(ids), decoder_input_ids=ids).logits)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.allclose(outputs[1], outputs[2], atol=1e-4)
    assert not torch.allclose(outputs[2], outputs[3], atol=1e-3)


def test_evaluate_measures_base_and_result(trained: TrainSettings) -> None:
    seen: list[int] = []

    def count(answered: Any) -> dict[str, float]:
        seen.append(len(answered))
        return {"n": len(answered)}

    settings = TrainSettings(**{**_fields(trained), "metrics": (count,)})
    before, after = evaluate(settings), evaluate(settings, trained.output / "adapter", split="valid")
    assert before["n"] == after["n"] == 2
    assert seen == [2, 2]


def test_accumulated_passes_are_one_large_one(steady: Path, dataset: Path, tmp_path: Path) -> None:
    """Answers differ in length, so that a mean of the passes' means would be another loss."""
    found = []
    for size, passes in ((6, 1), (2, 3), (1, 6)):
        run = tmp_path / f"{size}"
        # The order must not depend on how many questions go together.
        settings = tiny_settings(dataset, run, steady, batch_size=size, accumulation=passes, max_steps=3, dropout=0.0)
        train(settings)
        found.append(losses(run))
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[2] == pytest.approx(found[0], abs=1e-4)


def test_the_loss_is_the_cross_entropy_of_unshifted_labels(base: Path, dataset: Path) -> None:
    florence = load_florence(base)
    writer, images = AnswerWriter(florence), ImageStore()
    example = read_data(dataset).train.examples[0]
    assert isinstance(example, BoxExample)
    questions = [class_question(example, label) for label in ("red", "green")]
    samples = [
        Sample(images.read(one), ("a", 0), torch.tensor(writer.question_ids(one)), torch.tensor(writer.answer_ids(one)))
        for one in questions
    ]
    batch = Collator(florence.pixels, florence.vocabulary.pad_id)(samples)
    assert batch["pixel_values"].shape[0] == 1
    assert batch["image_index"].tolist() == [0, 0]
    assert (batch["labels"] == -100).any()
    network = florence.network
    network.requires_grad_(False)
    features = network.get_image_features(batch["pixel_values"]).pooler_output[batch["image_index"]]
    embedded = torch.cat([features, network.get_input_embeddings()(batch["input_ids"])], 1)
    mask = torch.cat([torch.ones(2, features.shape[1], dtype=torch.long), batch["attention_mask"]], 1)
    native = network(inputs_embeds=embedded, attention_mask=mask, labels=batch["labels"])
    ours = functional.cross_entropy(native.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    assert float(native.loss) == pytest.approx(float(ours), abs=1e-5)


def test_answers_begin_and_end_as_the_models_own_do(base: Path) -> None:
    florence = load_florence(base)
    example = BoxExample(Path("a"), ImageSize(10, 10), (), "a:1")
    ids = AnswerWriter(florence).answer_ids(class_question(example, "red"))
    # As published, this model is forced to begin with <s>.
    assert ids == [florence.vocabulary.bos_id, florence.vocabulary.eos_id]


def test_labels_begin_as_in_the_models_own_answers(base: Path, spaced: Path) -> None:
    boxes = (LabelledBox("red", (0, 0, 5, 5)), LabelledBox("red", (5, 5, 10, 10)), LabelledBox("green", (1, 0, 5, 5)))
    example = BoxExample(Path("a"), ImageSize(10, 10), boxes, "a:1")
    [all_at_once] = positive_questions(example, PromptForm.OD)
    text = TextExample(Path("a"), ImageSize(10, 10), "?", "red<loc_1>", "a:2")
    questions = (class_question(example, "red"), all_at_once, class_question(example, "blue"))
    for folder, space in ((base, ""), (spaced, " ")):
        florence = load_florence(folder)
        words = florence.vocabulary.encode
        expected = [
            f"{space}red<loc_0><loc_0><loc_500><loc_500><loc_500><loc_500><loc_999><loc_999>",
            f"{space}red<loc_0><loc_0><loc_500><loc_500><loc_500><loc_500><loc_999><loc_999>"
            f"{space}green<loc_100><loc_0><loc_500><loc_500>",
            "",
            "red<loc_1>",
        ]
        written = [
            AnswerWriter(florence).answer_ids(one) for one in (*questions, *positive_questions(text, PromptForm.CLASS))
        ]
        assert written == [words(one) for one in expected]


def test_full_tuning_leaves_a_model_that_loads(spaced: Path, dataset: Path, tmp_path: Path) -> None:
    settings = tiny_settings(
        dataset,
        tmp_path / "run",
        spaced,
        method=Method.FULL,
        parts=frozenset(Part),
        max_steps=2,
        gradient_checkpointing=True,
    )
    report = train(settings)
    tuned, bare = load_florence(report.result), load_florence(spaced)
    assert report.result == tmp_path / "run" / "model"
    assert tuned.rules == bare.rules
    assert tuned.rules.space_before_labels
    assert bare.network.config._attn_implementation == "sdpa"
    assert not torch.equal(tuned.network.lm_head.weight, bare.network.lm_head.weight)
    evaluate(settings, report.result)


def test_texts_are_trained_and_measured(base: Path, tmp_path: Path) -> None:
    paint_images(tmp_path)
    rows = [od_row(name, "a red box", "<CAPTION>") for name in ("a.png", "b.png", "c.png", "d.png")]
    (tmp_path / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = train(tiny_settings(tmp_path, tmp_path / "run", base, max_steps=2, report=True))
    assert report.figures.keys() == {"loss", "exact_match", "edit_distance"}
    text = (tmp_path / "run" / "report.md").read_text()
    assert "| edit distance (lower is better) |" in text
    assert "Test split: 1 image, 1 text." in text
    card = (report.result / "README.md").read_text()
    assert "| exact matches (higher is better) |" in card
    assert "| loss (lower is better) |" in card
    assert "a red box" in text


def test_a_wrong_metric_is_named(base: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no figure 'mAP'.*only .*loss"):
        train(tiny_settings(dataset, tmp_path / "run", base, best_metric="mAP"))
    assert not (tmp_path / "run").exists()


def test_what_the_report_lacks_is_named_before_the_training(base: Path, dataset: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text(json.dumps(coco_document()))
    with pytest.raises(InputError, match=r"known\.json: its image 'a\.png' isn't in"):
        train(tiny_settings(dataset, tmp_path / "run", base, retention=known, report=True))
    assert not (tmp_path / "run").exists()


def test_all_classes_at_once_are_drawn_side_by_side(base: Path, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = tiny_settings(dataset, run, base, max_steps=1, prompt_form=PromptForm.OD, report=True, retention=None)
    train(settings)
    sides = ("image", "truth", "base", "tuned")
    [row] = [line for line in (run / "report.md").read_text().splitlines() if "001-" in line]
    assert row.endswith(".png " + " | ".join(f"![{side}](report/001-{side}.jpg)" for side in sides) + " |")
    assert {path.name for path in (run / "report").glob("001-*")} == {f"001-{side}.jpg" for side in sides}
    assert "AP50" in json.loads((run / "run.json").read_text())["test"]


@pytest.mark.parametrize("method", Method)
def test_images_are_resized_for_a_run_as_they_were_for_training(
    base: Path, dataset: Path, tmp_path: Path, method: Method
) -> None:
    settings = tiny_settings(dataset, tmp_path / "run", base, max_steps=1, image_size=20, method=method)
    report = train(settings)
    where = locate_base(settings)
    tuned = LocatedWeights(report.result, "tuned", None, "")
    adapter = tuned if method is Method.LORA else None
    detector = load_detector(
        where if adapter else tuned, adapter, DetectSettings(), device=torch.device("cpu"), dtype=torch.float32
    )
    image = read_image(dataset / "a.png")
    bare = load_florence(base).pixels
    assert torch.equal(pixel_values([image], detector.model.pixels), pixel_values([resized_to_square(image, 20)], bare))
    assert not torch.equal(pixel_values([image], detector.model.pixels), pixel_values([image], bare))


def test_a_base_in_the_older_layout_gives_a_native_model(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "older").mkdir()
    older = older_folder(tmp_path / "older")
    settings = tiny_settings(dataset, tmp_path / "run", older, max_steps=1, method=Method.FULL)
    report = train(settings)
    tuned, bare = load_florence(report.result), load_florence(older)
    assert (tuned.rules, tuned.pixels) == (bare.rules, bare.pixels)
    assert tuned.vocabulary.encode("a<loc_7>") == bare.vocabulary.encode("a<loc_7>")


def test_a_question_longer_than_the_model_takes_is_left_out(base: Path, tmp_path: Path) -> None:
    rows = [
        od_row("a.png", "x", "y" * 200),
        *(od_row(name, "three", "How many?") for name in ("b.png", "c.png", "d.png")),
    ]
    path = write_jsonl(tmp_path, rows)
    florence, settings = load_florence(base), tiny_settings(tmp_path, tmp_path / "run", base)
    data = read_data(tmp_path, (34, 33, 33))
    found = without_long_rows(data, florence, settings)
    # <s> and </s> around it; an image takes 10 of the 128 positions.
    assert [str(fault) for fault in found.faults] == [
        f"{path}:1: its question has 202 tokens, and this model takes 118; shorten or split the row"
    ]


def test_a_logger_that_is_not_installed_is_named(base: Path, dataset: Path, tmp_path: Path) -> None:
    settings = tiny_settings(dataset, tmp_path / "run", base, log_to=frozenset({Logger.WANDB}))
    if find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    with pytest.raises(UsageError, match="log-to names wandb"):
        train(settings)


def test_patience_ends_a_training_that_gets_no_better(base: Path, dataset: Path, tmp_path: Path) -> None:
    settings = tiny_settings(dataset, tmp_path / "run", base, epochs=6, patience=1, lr=1e-9)
    report = train(settings)
    assert report.n_steps < 6 * 2
    found = losses(tmp_path / "run")
    assert train(settings, resume=True).n_steps == report.n_steps
    assert losses(tmp_path / "run") == found


def test_an_answer_longer_than_the_model_can_say_is_left_out(base: Path, tmp_path: Path) -> None:
    document = coco_document()
    many = [{**document["annotations"][0], "id": 100 + number, "bbox": [0, 0, 1 + number, 5]} for number in range(39)]
    document["annotations"] += many
    path = write_coco(tmp_path, document)
    with pytest.raises(InputError, match=rf"{path.name}:\d+: its answer has 16\d tokens"):
        train(tiny_settings(tmp_path, tmp_path / "run", base, strict=True))


def test_the_base_is_left_alone(base: Path) -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = make_trainable(network, tiny_settings(Path("d"), Path("o"), base))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=0.1)
    ids = torch.arange(300, 306)[None]
    embedded = network.get_input_embeddings()(ids)
    model(inputs_embeds=embedded, decoder_input_ids=ids, use_cache=False).logits.square().mean().backward()
    optimizer.step()
    after = {name.replace(".base_layer", ""): value for name, value in network.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(bool(value.any()) for name, value in after.items() if "lora_B" in name)
