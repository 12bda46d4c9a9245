"""A file is written whole or not at all, and is on the disk before it has its name."""

import os
from pathlib import Path

import pytest

from grounded_seg.errors import OutputError
from grounded_seg.files import write_text


def test_a_file_is_on_the_disk_before_it_replaces_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    synced: list[tuple[int, str]] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, path.read_text())))
    write_text(path, "{}\n")
    assert path.read_text() == "{}\n"
    assert synced == [(path.stat().st_ino, "old"), (tmp_path.stat().st_ino, "{}\n")]
    assert [one.name for one in tmp_path.iterdir()] == ["run.json"]


def test_a_file_system_that_syncs_no_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == tmp_path.stat().st_ino:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr("os.fsync", refuse)
    write_text(tmp_path / "run.json", "{}\n")
    assert (tmp_path / "run.json").read_text() == "{}\n"


def test_an_error_names_the_file_and_not_the_hidden_one(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "run.json"
    with pytest.raises(OutputError, match="another file with --json") as raised:
        write_text(path, "{}\n", instead="another file with --json")
    assert str(raised.value).startswith(f"{path} can't be written (No such file or directory)")
