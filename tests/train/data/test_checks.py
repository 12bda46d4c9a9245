"""Images are decoded once, in several threads, and counted; what is wrong is said when it is asked for."""

import threading
from pathlib import Path

import pytest
from train_cases import HEIGHT, WIDTH, paint_images, read_data, write_coco

from grounded_seg.errors import InputError
from grounded_seg.records import Image, ImageSize
from grounded_seg.train import TrainSettings
from grounded_seg.train.data import checks
from grounded_seg.train.data.checks import ImageSizes, UnusableRowError
from grounded_seg.train.data.data_set import read_training_data


def test_images_are_decoded_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint_images(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    # Each decoding waits for another one: in one thread this would break the barrier.
    both = threading.Barrier(2, timeout=60)

    def read(path: Path, _max_pixels: int) -> Image:
        both.wait()
        return checks_read(path)

    checks_read = checks.read_image
    monkeypatch.setattr(checks, "read_image", read)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    seen: list[tuple[int, int]] = []
    sizes = ImageSizes(progress=lambda done, n_all: seen.append((done, n_all)))
    sizes.read(tmp_path, names[:4])
    sizes.read(tmp_path, names)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4), (5, 6), (6, 6)]
    assert {sizes.of(tmp_path / name) for name in names} == {ImageSize(WIDTH, HEIGHT)}


def test_what_is_wrong_with_an_image_is_said_of_its_row(tmp_path: Path) -> None:
    paint_images(tmp_path)
    good, cut = tmp_path / "a.png", tmp_path / "b.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    sizes = ImageSizes()
    sizes.read(tmp_path, ["a.png", "b.png", "nowhere.png"])
    assert sizes.of(good) == ImageSize(WIDTH, HEIGHT)
    with pytest.raises(UnusableRowError, match="damaged"):
        sizes.of(cut)
    with pytest.raises(UnusableRowError, match="no file is at"):
        sizes.of(tmp_path / "nowhere.png")
    with pytest.raises(UnusableRowError, match="is 1 x 2 px there, but upright it is 40 x 30 px"):
        sizes.of(good, ImageSize(1, 2))


def test_a_limit_of_pixels_leaves_images_out(tmp_path: Path) -> None:
    write_coco(tmp_path)
    # Pixels of every other image: the first is as large as the others, and its row is as good.
    data = read_data(tmp_path, max_pixels=WIDTH * HEIGHT)
    assert not data.faults
    seen: list[tuple[int, int]] = []
    with pytest.raises(InputError, match=r"the limit is 1199 pixels.*--max-pixels"):
        read_training_data(
            TrainSettings(dataset=tmp_path, output=tmp_path, max_pixels=WIDTH * HEIGHT - 1),
            lambda done, n_all: seen.append((done, n_all)),
        )
    assert seen[-1] == (6, 6)
