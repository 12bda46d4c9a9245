"""The folder that a run writes: names of its files, and what is said where they can't be written."""

from pathlib import Path

import pytest

from grounded_seg.errors import OutputError, UsageError
from grounded_seg.files import as_output_error
from grounded_seg.runs.folder import RunFolder


def test_files_keep_sub_folders_and_the_whole_name() -> None:
    folder = RunFolder(Path("out"))
    assert folder.overlay("sub/a.jpg", "jpg") == Path("out/overlays/sub/a.jpg.jpg")
    assert folder.mask("sub/a.jpg", 1) == Path("out/masks/sub/a.jpg.001.png")
    assert folder.crop("a.jpg", 12) == Path("out/crops/a.jpg.012.png")


@pytest.mark.parametrize("letter", ["x", "\u00fc", "\udcff"])
@pytest.mark.parametrize("n_bytes", [251, 252, 253, 255])
def test_a_name_as_long_as_a_file_system_takes_still_gets_its_pictures(
    tmp_path: Path, letter: str, n_bytes: int
) -> None:
    size = len(letter.encode("utf-8", "surrogateescape"))
    stems = [letter * ((n_bytes - 5) // size) + "y" * ((n_bytes - 5) % size) + last for last in "ab"]
    folder = RunFolder(tmp_path)
    written = set()
    for name in (f"sub/{stem}.jpg" for stem in stems):
        for path in (folder.overlay(name, "jpg"), folder.mask(name, 1), folder.mask(name, 2), folder.crop(name, 1)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            written.add(path)
            assert path.parent.name == "sub"
    assert len(written) == 8
    assert {path.suffixes[-1] for path in written} == {".jpg", ".png"}


def test_an_error_without_a_text_of_the_system_is_still_told() -> None:
    with pytest.raises(OutputError, match=r"the results can't be written \(encoder error -2\)"), as_output_error():
        raise OSError("encoder error -2")


def test_decisions_of_people_are_not_left_to_another_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.review.touch()
    for problem in (folder.check_new, lambda: folder.check_free(overwrite=False)):
        with pytest.raises(UsageError, match=r"review\.jsonl holds decisions"):
            problem()
    folder.journal.write_text("{}\n")
    with pytest.raises(UsageError, match=r"review\.jsonl holds decisions"):
        folder.check_free(overwrite=True)
    # A run that goes on keeps its images and instances.
    folder.check_free(overwrite=False, resume=True)
    assert folder.review.exists()
