"""Images in memory: bounded, and shared out among all processes that read some."""

from pathlib import Path

import pytest
import torch
from tiny_florence import save_tiny_florence
from train_cases import HEIGHT, WIDTH, paint_images, read_data, tiny_settings, write_coco

from grounded_seg.detect.model.load import load_florence
from grounded_seg.errors import ImageError
from grounded_seg.records import ImageSize
from grounded_seg.train.data import samples
from grounded_seg.train.data.questions import class_question
from grounded_seg.train.data.records import BoxExample, Question
from grounded_seg.train.data.samples import ImageStore
from grounded_seg.train.fit import preparation
from grounded_seg.weights.locate import LocatedWeights


def question(path: Path) -> Question:
    return class_question(BoxExample(path, ImageSize(WIDTH, HEIGHT), (), "a:1"), "red")


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    decoded: list[Path] = []
    read_image = samples.read_image

    def read(path: Path, max_pixels: int) -> object:
        decoded.append(path)
        return read_image(path, max_pixels)

    monkeypatch.setattr(samples, "read_image", read)
    return decoded


@pytest.mark.parametrize(("n_readers", "n_decoded"), [(1, 6), (2, 12)])
def test_readers_share_the_memory_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_readers: int, n_decoded: int
) -> None:
    paint_images(tmp_path)
    paths = sorted(tmp_path.glob("*.png"))
    monkeypatch.setattr(samples, "_CACHE_BYTES", len(paths) * WIDTH * HEIGHT * 3)
    decoded = count_decoded(monkeypatch)
    store = ImageStore(n_readers=n_readers)
    for _ in range(2):
        for path in paths:
            store.read(question(path))
    assert len(decoded) == n_decoded


def test_a_store_refuses_images_above_its_limit(tmp_path: Path) -> None:
    paint_images(tmp_path)
    with pytest.raises(ImageError, match="raise --max-pixels"):
        ImageStore(max_pixels=WIDTH * HEIGHT - 1).read(question(tmp_path / "a.png"))


def test_workers_and_processes_of_a_machine_count_as_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = save_tiny_florence(tmp_path / "base"), write_coco(tmp_path / "data").parent
    seen: list[tuple[object, ...]] = []

    def store(*settings: object) -> ImageStore:
        seen.append(settings)
        return ImageStore()

    monkeypatch.setattr(preparation, "ImageStore", store)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    settings = tiny_settings(data, tmp_path / "run", base, workers=3, max_pixels=5000, image_size=20)
    read = read_data(data)
    where = LocatedWeights(base, "tiny", None, "")
    preparation.PreparedTraining(settings, where, load_florence(base), read, torch.device("cpu"), torch.float32)
    assert seen == [(20, 5000, 8)]
