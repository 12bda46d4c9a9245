"""Image features that are kept: the same losses, each image encoded once, and nothing left on the disk."""

import errno
import json
import logging
import os
import shutil
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from fakes import painted
from tiny_florence import save_tiny_florence
from train_cases import HEIGHT, IMAGES, WIDTH, od_row, tiny_settings, write_coco, write_jsonl

from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.pixels import pixel_values
from grounded_seg.errors import OutputError
from grounded_seg.settings import Precision
from grounded_seg.train import TrainSettings, train
from grounded_seg.train.data.encoded_images import EncodedImages, stamp_of
from grounded_seg.train.data.samples import IGNORED, feature_grid
from grounded_seg.train.dry_run import dry_run
from grounded_seg.train.fit import feature_store, loop
from grounded_seg.train.fit.feature_store import FeatureStore
from grounded_seg.train.fit.loss import BatchLoss
from grounded_seg.train.fit.preparation import PreparedTraining, prepare
from grounded_seg.train.fit.trainable import make_trainable
from grounded_seg.train.measure.metrics import Answered
from grounded_seg.train.settings import Method, Part


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data")).parent


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the images that the vision tower encodes, pass by pass."""
    from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

    n_images: list[int] = []
    forward = Florence2VisionBackbone.forward

    def count(self: Any, values: torch.Tensor, **more: Any) -> Any:
        n_images.append(len(values))
        return forward(self, values, **more)

    monkeypatch.setattr(Florence2VisionBackbone, "forward", count)
    return n_images


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations encode their images, and say nothing: what they would say takes longest."""

    def say_nothing(model: Any, questions: Any, images: Any, max_new_tokens: int, image_tokens: Any) -> list[Answered]:
        for _, about_one in groupby(questions, key=lambda question: question.example.image):
            image_tokens(next(about_one))
        return [Answered(question, "") for question in questions]

    monkeypatch.setattr("grounded_seg.train.fit.loss.answered", say_nothing)


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in ("loss", "valid_loss") if name in row]


def kept_facts(run: Path) -> Any:
    return json.loads((run / "run.json").read_text())["features"]


@pytest.mark.parametrize(
    "more",
    [
        {"accumulation": 2, "workers": 1},
        {"parts": frozenset({Part.PROJECTOR})},
        {"parts": frozenset({Part.LANGUAGE}), "method": Method.FULL, "gradient_checkpointing": True},
    ],
)
def test_losses_are_those_without_keeping(
    base: Path, dataset: Path, tmp_path: Path, encoded: list[int], more: dict[str, Any]
) -> None:
    settings = tiny_settings(dataset, tmp_path / "kept", base, augment=False, **more)
    train(settings)
    # Four images of train and one of valid, each once, whatever number of epochs and validations.
    assert encoded == [1] * 5
    train(replace(settings, output=tmp_path / "computed", cache_features=False))
    assert len(encoded) > 5 + 5
    kept, computed = losses(tmp_path / "kept"), losses(tmp_path / "computed")
    assert len(kept) >= 4
    assert kept == computed
    assert kept_facts(tmp_path / "kept") == {"kept": 5, "train": 4, "valid": 1, "why_not": ""}
    assert kept_facts(tmp_path / "computed")["kept"] == 0


@pytest.mark.parametrize("keeps", [True, False])
def test_a_resumed_training_finds_the_same_losses(base: Path, dataset: Path, tmp_path: Path, keeps: bool) -> None:
    run = tmp_path / "run"
    settings = tiny_settings(dataset, run, base, augment=False, save_steps=1, keep=9, dropout=0.1)
    train(settings)
    whole = losses(run)
    for checkpoint in (run / "checkpoints").iterdir():
        if int(checkpoint.name.rpartition("-")[2]) > 3:
            shutil.rmtree(checkpoint)
    manifest = json.loads((run / "run.json").read_text())
    # As a version wrote it that kept nothing.
    del manifest["settings"]["cache_features"], manifest["features"]
    (run / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
    train(replace(settings, cache_features=keeps), resume=True)
    assert kept_facts(run)["kept"] == (5 if keeps else 0)
    assert losses(run) == whole


@pytest.mark.parametrize("dtype", [Precision.FLOAT32, Precision.BFLOAT16])
@torch.no_grad()
def test_a_validation_has_the_losss_image_tokens_kept_or_not(
    base: Path, dataset: Path, tmp_path: Path, dtype: Precision
) -> None:
    found = []
    for keeps in (True, False):
        loss_of, prepared = batch_loss(base, dataset, tmp_path, FeatureStore(tmp_path, 1 << 20, keeps=keeps), dtype)
        question = prepared.asked[0]
        found += [loss_of.image_tokens(question) for _ in range(2)]
        number = prepared.features.images.number(question.example.image)
        assert prepared.features.images.is_kept(number, stamp_of(question.example.image)) is keeps
    florence, images = prepared.florence, [prepared.images.read(question)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is Precision.BFLOAT16):
        values = pixel_values(images, florence.pixels)
        expected = florence.network.get_image_features(values).pooler_output.float()
    assert all(torch.equal(one, expected) for one in found)
    # As `run` has them: in the dtype of the weights.
    assert torch.equal(expected, florence.encode_images(images)) is (dtype is Precision.FLOAT32)


def batch_loss(
    base: Path, dataset: Path, folder: Path, store: FeatureStore, dtype: Precision = Precision.FLOAT32
) -> tuple[BatchLoss, PreparedTraining]:
    settings = tiny_settings(dataset, folder / "run", base, augment=False)
    prepared = prepare(replace(settings, models=replace(settings.models, dtype=dtype)))
    make_trainable(prepared.florence.network, settings).eval()
    return BatchLoss(prepared, store), prepared


@torch.no_grad()
def test_the_head_sees_tokens_alone_and_the_loss_is_the_networks_own(base: Path, dataset: Path, tmp_path: Path) -> None:
    loss_of, prepared = batch_loss(base, dataset, tmp_path, FeatureStore(tmp_path, 1 << 20, keeps=False))
    one = prepared.valid_dataset[0]
    batch = prepared.collator([one, replace(one, answer_ids=one.answer_ids[[0, 0, 0]])])
    network, is_token = prepared.florence.network, batch["labels"] != IGNORED
    assert 0 < is_token.sum() < is_token.numel()
    seen: list[torch.Size] = []
    network.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits.shape))
    found = loss_of(network, batch)
    assert seen == [(int(is_token.sum()), network.config.text_config.vocab_size)]
    # Nothing stays at the head.
    features = loss_of.image_tokens(prepared.asked[0]).expand(2, -1, -1)
    words = network.get_input_embeddings()(batch["input_ids"])
    states = torch.cat([features, words], dim=1)
    is_state = torch.cat([torch.ones(features.shape[:2], dtype=torch.long), batch["attention_mask"]], dim=1)
    mean = network(inputs_embeds=states, attention_mask=is_state, labels=batch["labels"]).loss
    assert seen[1] == (*is_token.shape, seen[0][1])
    assert float(found / is_token.sum()) == pytest.approx(float(mean), rel=1e-6)


@torch.no_grad()
def test_an_image_that_changes_while_the_disk_is_full_is_computed_each_time(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_coco(tmp_path / "data").parent
    with FeatureStore(tmp_path, 0) as store:
        loss_of, prepared = batch_loss(base, data, tmp_path, store)
        question = prepared.asked[0]
        path = question.example.image
        stamp, was = stamp_of(path), loss_of.image_tokens(question)
        assert stamp is not None
        assert store.n_in_file == 1
        monkeypatch.setattr(store, "_write", full)
        os.utime(path, ns=(1, 1))
        assert torch.equal(loss_of.image_tokens(question), was)
        assert store.n_in_file == 0
        # Back as it was: it isn't taken for the one that was kept.
        os.utime(path, ns=(stamp[0], stamp[0]))
        assert stamp_of(path) == stamp
        assert torch.equal(loss_of.image_tokens(question), was)
        with pytest.raises(OutputError, match=r"no room for the new ones in .* make room, and resume with --resume$"):
            store.get(0)


@pytest.mark.parametrize(
    ("more", "n_kept", "why"),
    [
        ({"augment": True}, 1, "images are augmented, which --no-augment turns off"),
        ({"augment": False, "parts": frozenset({Part.VISION})}, 0, "the vision tower is trained"),
        ({"augment": False, "cache_features": False}, 0, "--no-cache-features"),
    ],
)
def test_what_changes_is_not_kept(
    base: Path, dataset: Path, tmp_path: Path, encoded: list[int], more: dict[str, Any], n_kept: int, why: str
) -> None:
    train(tiny_settings(dataset, tmp_path / "run", base, epochs=2, **more))
    facts = kept_facts(tmp_path / "run")
    assert (facts["kept"], facts["train"], facts["why_not"]) == (n_kept, 0, why)
    # Four steps, in which images that change are encoded together, the others, eleven in all, one by one. And the
    # validation image, if it is not kept, for loss and answers of each epoch.
    n_passes = 11 if "cache_features" in more else 4
    n_valid = 1 if n_kept else 4
    assert len(encoded) == n_passes + n_valid


def test_texts_are_kept_although_boxes_are_augmented(base: Path, tmp_path: Path, encoded: list[int]) -> None:
    rows = [od_row(name, "three", "How many?") for name in IMAGES]
    write_jsonl(tmp_path / "data", rows)
    train(tiny_settings(tmp_path / "data", tmp_path / "run", base, augment=True))
    assert len(encoded) == 5
    assert kept_facts(tmp_path / "run")["train"] == 4


@pytest.mark.parametrize("fails", [None, KeyboardInterrupt()])
def test_what_does_not_fit_into_memory_is_in_a_file_that_goes(
    base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: BaseException | None
) -> None:
    """Its file has no name even while it is used, so that nothing of it is left however the process ends."""
    stores: list[FeatureStore] = []
    names: list[set[str]] = []

    class Watched(FeatureStore):
        def __init__(self, folder: Path, memory_limit: int, *, keeps: bool) -> None:
            # Room for two of the five.
            super().__init__(folder, 2 * 10 * 32 * 4, keeps=keeps)
            if keeps:
                stores.append(self)

        def close(self) -> None:
            counts.append(self.n_in_file)
            super().close()

    counts: list[int] = []

    def look(row: Any) -> None:
        names.append({path.name for path in tmp_path.iterdir()})
        if fails is not None and row["step"] == 3:
            raise fails

    monkeypatch.setattr(loop, "FeatureStore", Watched)
    settings = tiny_settings(dataset, tmp_path / "run", base, augment=False)
    if fails is None:
        train(settings, watcher=look)
    else:
        with pytest.raises(type(fails)):
            train(settings, watcher=look)
    assert counts == [3]
    assert stores[0]._file is not None
    assert stores[0]._file.closed
    assert set.union(*names) == {"run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {
        *("adapter", "metrics.jsonl", "loss.png", "run.json", "checkpoints"),
    }
    if fails is None:
        train(replace(settings, output=tmp_path / "computed", cache_features=False))
        assert losses(tmp_path / "run") == losses(tmp_path / "computed")


def test_a_full_disk_is_said_in_one_line_and_the_training_goes_on(
    base: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    encoded: list[int],
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(loop, "memory_for_features", lambda: 2 * 10 * 32 * 4)
    monkeypatch.setattr(logging.getLogger("grounded_seg"), "propagate", True)
    with caplog.at_level(logging.WARNING, "grounded_seg"):
        train(tiny_settings(dataset, tmp_path / "run", base, augment=False))
    [told] = [one.getMessage() for one in caplog.records if "image features" in one.getMessage()]
    assert told == (
        f"image features that don't fit into memory can't be kept in {tmp_path / 'run'} (No space left on device); "
        "they are computed each time, or make room and resume"
    )
    assert len(encoded) > 5
    assert len(losses(tmp_path / "run")) == 6


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_gets_full_while_it_is_written_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureStore(tmp_path, 0) as store:
        assert store.put(0, torch.ones(4))
        monkeypatch.setattr(store, "_write", full)
        assert not store.put(1, torch.ones(4))
        monkeypatch.undo()
        # Never again: it is full.
        assert not store.put(2, torch.ones(4))
        assert [number in store for number in range(3)] == [True, False, False]
        assert torch.equal(store.get(0), torch.ones(4))


def test_an_image_that_changes_on_the_disk_is_encoded_again(base: Path, tmp_path: Path, encoded: list[int]) -> None:
    data = write_coco(tmp_path / "data").parent
    changed: list[int] = []

    def look(row: Any) -> None:
        if row["step"] == 2 and "valid_loss" in row:
            changed.append(len(encoded))
            for name in ("a.png", "b.png"):
                PIL.Image.fromarray(painted(WIDTH, HEIGHT, red=(1, 1, 9, 9))).save(data / name)
                os.utime(data / name, ns=(1, 1))
            (data / "e.png").unlink()

    train(tiny_settings(data, tmp_path / "run", base, augment=False), watcher=look)
    # One that is gone keeps its features.
    assert changed == [5]
    assert len(encoded) == 7


def test_a_file_that_can_not_be_read_back_is_one_line(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "run", 0) as store:
        for number in range(3):
            assert store.put(number, torch.full((1, 4), float(number), dtype=torch.bfloat16))
        assert torch.equal(store.get(2), torch.full((1, 4), 2.0, dtype=torch.bfloat16))
        assert store.put(1, torch.full((1, 4), 7.0, dtype=torch.bfloat16))
        assert store.get(1)[0, 0] == 7
        assert store.n_in_file == 3
        assert store._file is not None
        store._file.truncate(8)
        with pytest.raises(OutputError, match=r"can't be read back from .*--no-cache-features"):
            store.get(2)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_shared_by_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "memory_bytes", lambda: 16 << 30)
    assert feature_store.memory_for_features() == 4 << 30
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert feature_store.memory_for_features() == 1 << 30
    monkeypatch.setattr(feature_store, "memory_bytes", lambda: None)
    assert feature_store.memory_for_features() == 256 << 20


def test_the_grid_is_that_of_the_network(base: Path) -> None:
    florence = load_florence(base)
    for height, width in ((96, 96), (64, 128), (100, 70)):
        florence.pixels = replace(florence.pixels, height=height, width=width)
        with torch.no_grad():
            tower = florence.network.model.vision_tower(torch.zeros(1, 3, height, width)).last_hidden_state
        assert feature_grid(florence) == tower.shape[2:]


def test_a_mark_holds_for_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    images = EncodedImages([path, path])
    stamp = stamp_of(path)
    assert stamp is not None
    assert (len(images), images.number(path), images.number(tmp_path / "b")) == (1, 0, -1)
    assert not images.is_kept(0, stamp)
    assert not images.is_kept(0, None)
    images.mark(0, stamp)
    assert images.is_kept(0, stamp)
    path.write_bytes(b"12345")
    assert not images.is_kept(0, stamp_of(path))
    path.unlink()
    assert images.is_kept(0, stamp_of(path))
    assert not images.is_kept(-1, None)


def test_a_dry_run_says_whether_and_how_much(base: Path, dataset: Path, tmp_path: Path) -> None:
    settings: TrainSettings = tiny_settings(dataset, tmp_path, base, augment=False)
    assert dry_run(settings).features == "image features are computed once and kept, 5 images, 0 MB at most"
    told = dry_run(replace(settings, augment=True)).features
    assert told.endswith("images are augmented, which --no-augment turns off; those of 1 image are kept, 0 MB at most")
    told = dry_run(replace(settings, cache_features=False)).features
    assert told == "image features are computed in each step: --no-cache-features"
