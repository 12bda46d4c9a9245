"""The test split as a COCO file."""

from pathlib import Path

import pytest
from eval_cases import fill_the_disk

from grounded_seg.errors import OutputError
from grounded_seg.records import ImageSize
from grounded_seg.train.data.records import BoxExample
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.comparison import write_test_file


def test_a_full_disk_leaves_no_half_test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = BoxExample(tmp_path / "a.png", ImageSize(4, 4), (), "a")
    fill_the_disk(monkeypatch)
    with pytest.raises(OutputError, match=r"test.json can't be written \(No space left on device\)"):
        write_test_file([example], ["car"], TrainFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []
