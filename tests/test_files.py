"""Files and folders are written whole or not at all; a file is on the disk before it has its name."""

import os
from pathlib import Path

import pytest

from grounded_seg.errors import OutputError, UsageError
from grounded_seg.files import name_within_limit, whole_file, whole_folder, write_text


def test_a_file_is_on_the_disk_before_it_replaces_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    synced: list[tuple[int, str]] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, path.read_text())))
    write_text(path, "{}\n")
    assert path.read_text() == "{}\n"
    assert synced == [(path.stat().st_ino, "old"), (tmp_path.stat().st_ino, "{}\n")]
    assert [one.name for one in tmp_path.iterdir()] == ["run.json"]


def test_of_two_that_write_a_file_at_once_the_first_does(tmp_path: Path) -> None:
    # Both would write into one hidden file: that of the first would get its name with what the second has so far.
    path = tmp_path / "report.json"
    with whole_file(path) as first:
        first.write(b"first")
        with pytest.raises(OSError, match="another process is writing it") as raised, whole_file(path):
            pass
        assert raised.value.filename == str(path)
    assert path.read_bytes() == b"first"
    with whole_file(path) as second:
        second.write(b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_hidden_file_of_a_killed_process_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / ".report.json.part").write_bytes(b"half of something longer")
    with whole_file(tmp_path / "report.json") as file:
        file.write(b"{}")
    assert (tmp_path / "report.json").read_bytes() == b"{}"


def test_a_file_system_that_syncs_no_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == tmp_path.stat().st_ino:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr("os.fsync", refuse)
    write_text(tmp_path / "run.json", "{}\n")
    assert (tmp_path / "run.json").read_text() == "{}\n"


def _write(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch(exist_ok=False)


@pytest.mark.parametrize("older", [None, (), ("old.txt",)], ids=["new", "empty", "full"])
def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, older: tuple[str, ...] | None) -> None:
    output = tmp_path / "out"
    if older is not None:
        output.mkdir()
        for name in older:
            (output / name).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError), whole_folder(output, replace=bool(older)) as folder:
        _write(folder, "new.txt", "new.txt")
    assert sorted(tmp_path.rglob("*")) == before
    with whole_folder(output, replace=bool(older)) as folder:
        (folder / "new.txt").touch()
        assert not (output / "new.txt").exists()
    assert sorted(tmp_path.rglob("*")) == [output, output / "new.txt"]


def test_what_came_into_a_folder_meanwhile_stays(tmp_path: Path) -> None:
    for output in (tmp_path / "empty", tmp_path / "new"):
        if output.name == "empty":
            output.mkdir()
        with pytest.raises(OSError, match="Directory not empty") as caught, whole_folder(output):
            _write(output, "theirs.txt")
        assert caught.value.filename == str(output)
        assert [path.name for path in output.iterdir()] == ["theirs.txt"]


def test_errors_name_the_folder_that_a_user_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole_folder(tmp_path / "out") as folder:
        (folder / "missing" / "a.txt").touch()
    assert caught.value.filename == str(tmp_path / "out" / "missing" / "a.txt")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught, whole_folder(tmp_path / "file" / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "file" / "out")


def test_a_folder_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with whole_folder(output) as folder:
        (folder / "a.txt").touch()
        with pytest.raises(UsageError, match="out is being written by another process"), whole_folder(output):
            pass
        assert (folder / "a.txt").exists()
    assert [path.name for path in output.iterdir()] == ["a.txt"]


def test_names_are_shortened_between_letters() -> None:
    assert name_within_limit("a.jpg", ".png") == "a.jpg.png"
    assert name_within_limit("c" * 251, ".png") == "c" * 251 + ".png"
    shortened = name_within_limit("ü" * 200, ".png")
    assert len(os.fsencode(shortened)) in (254, 255)
    assert (shortened[:100], shortened[-4:]) == ("ü" * 100, ".png")
    assert name_within_limit("ü" * 201, ".png") != shortened


def test_an_error_names_the_file_and_not_the_hidden_one(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "run.json"
    with pytest.raises(OutputError, match="another file with --json") as raised:
        write_text(path, "{}\n", instead="another file with --json")
    assert str(raised.value).startswith(f"{path} can't be written (No such file or directory)")
