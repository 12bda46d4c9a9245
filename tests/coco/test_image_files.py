"""The file of an image whose name the disk has in another form, found without listing a folder for each name."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.values import Notes

NAMES = [f"straße/bäume-{number}.jpg" for number in range(30)]


def in_form(form: Any, name: str) -> str:
    return unicodedata.normalize(form, name)


@pytest.mark.parametrize(("on_disk", "asked"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_a_folder_is_listed_once_and_only_if_an_exact_name_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: str, asked: str
) -> None:
    for name in NAMES:
        path = tmp_path / in_form(on_disk, name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(str(folder)), scandir(folder))[1])
    notes = Notes()
    found = [file_of(tmp_path, in_form(asked, name), notes) for name in NAMES]
    assert found == [tmp_path / in_form(on_disk, name) for name in NAMES]
    assert len(listed) == (on_disk != asked)
    assert len(notes.lines()) == (on_disk != asked)


def test_a_name_that_two_files_could_be_is_none_of_them(tmp_path: Path) -> None:
    # Two accents in either order: neither file has the name, and all three are one in composed form.
    first, second, third = "a\u0323\u0302.jpg", "\u1ea1\u0302.jpg", "\u1ead.jpg"
    for name in (first, second):
        (tmp_path / name).touch()
    assert file_of(tmp_path, third) is None
    assert file_of(tmp_path, first) == tmp_path / first


def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    name = "café.jpg"
    assert file_of(tmp_path, in_form("NFC", name)) is None
    (tmp_path / in_form("NFD", name)).touch()
    os.utime(tmp_path, ns=(1, 1))
    assert file_of(tmp_path, in_form("NFC", name)) == tmp_path / in_form("NFD", name)
