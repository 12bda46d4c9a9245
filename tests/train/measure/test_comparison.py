"""The test split as a COCO file, and what both models are measured with."""

from pathlib import Path
from typing import Any

import pytest
from eval_cases import fill_the_disk

from grounded_seg.errors import OutputError
from grounded_seg.records import ImageSize
from grounded_seg.train.data.records import BoxExample
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.comparison import pair_on, write_test_file
from grounded_seg.train.settings import TrainSettings


def test_a_full_disk_leaves_no_half_test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = BoxExample(tmp_path / "a.png", ImageSize(4, 4), (), "a")
    fill_the_disk(monkeypatch)
    with pytest.raises(OutputError, match=r"test.json can't be written \(No space left on device\)"):
        write_test_file([example], ["car"], TrainFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_both_models_read_images_up_to_the_limit_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def look(asked: Any, _progress: object) -> None:
        seen.append(asked.source.max_pixels)

    monkeypatch.setattr("grounded_seg.train.measure.comparison.evaluate", look)
    settings = TrainSettings(dataset=tmp_path, output=tmp_path, max_pixels=5000)
    pair_on(tmp_path / "test.json", tmp_path, settings, lambda _done, _all: None)
    assert seen == [5000, 5000]
