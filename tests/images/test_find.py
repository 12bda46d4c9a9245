"""Which images are found in files, folders and lists, and what is said where there are none."""

import logging
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.errors import ImageError, InputError
from grounded_seg.images.find import common_root, find_images, root_from
from grounded_seg.images.formats import IMAGE_ENDINGS
from grounded_seg.images.given import PathList
from grounded_seg.images.read import read_image
from grounded_seg.records import Address


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_every_ending_in_any_case_is_found_and_sorted(tmp_path: Path) -> None:
    names = [f"{ending}.{case}" for ending in IMAGE_ENDINGS for case in (ending, ending.upper(), ending.title())]
    touch(*(tmp_path / name for name in names), tmp_path / "notes.txt", tmp_path / "jpg", tmp_path / ".png")
    found = find_images([tmp_path])
    assert found.root == tmp_path
    assert found.file_names == tuple(sorted(names))
    assert found.path("bmp.BMP") == tmp_path / "bmp.BMP"


def test_names_are_posix_relative_and_sorted_as_text(tmp_path: Path) -> None:
    touch(tmp_path / "b.png", tmp_path / "a" / "z.png", tmp_path / "a.png", tmp_path / "a" / "b" / "ü 1.png")
    assert find_images([tmp_path]).file_names == ("a.png", "a/b/ü 1.png", "a/z.png", "b.png")
    assert find_images([tmp_path], recursive=False).file_names == ("a.png", "b.png")


def test_a_named_file_is_an_input_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path / "photo", tmp_path / "other.jpg")
    found = find_images([tmp_path / "photo"])
    assert (found.root, found.file_names) == (tmp_path, ("photo",))


def test_several_paths_share_their_common_parent(tmp_path: Path) -> None:
    touch(tmp_path / "set" / "a" / "1.png", tmp_path / "set" / "b" / "1.png", tmp_path / "set" / "c" / "raw.dat")
    found = find_images([tmp_path / "set" / "b", tmp_path / "set" / "a", tmp_path / "set" / "c" / "raw.dat"])
    assert found.root == tmp_path / "set"
    assert found.file_names == ("a/1.png", "b/1.png", "c/raw.dat")


def test_nothing_is_found_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "a" / "2.png")
    monkeypatch.chdir(tmp_path)
    found = find_images([Path("a"), tmp_path / "a" / "1.png", Path("a/../a/2.png"), Path("./a/")])
    assert found.file_names == ("1.png", "2.png")


def test_one_folder_keeps_the_path_that_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "2.png")
    monkeypatch.chdir(tmp_path / "b")
    assert find_images([Path("../a")]).path("1.png") == Path("../a/1.png")
    assert find_images([Path("2.png"), Path()]).path("2.png") == Path("2.png")
    both = find_images([Path("../a"), Path()])
    assert (both.root, both.file_names) == (tmp_path, ("a/1.png", "b/2.png"))


def test_links_to_folders_are_not_followed_links_to_files_are(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "1.png", tmp_path / "out" / "2.png")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "elsewhere.png").symlink_to(tmp_path / "out", target_is_directory=True)
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out" / "2.png")
    (tmp_path / "in" / "nothing.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "in" / "itself.png").symlink_to(tmp_path / "in" / "itself.png")
    assert find_images([tmp_path / "in"]).file_names == ("1.png", "itself.png", "link.png", "nothing.png")
    # Named directly, a link to a folder is what the user means.
    assert find_images([tmp_path / "in" / "circle"], recursive=False).file_names[0] == "1.png"


OURS = {
    "results.jsonl": '{"file_name": "a.png", "status": "done", "instances": []}\n{"half": ',
    "run.json": '{"prompts": {}, "paths": [], "images": {}}',
}


@pytest.mark.parametrize("record", OURS)
def test_the_pictures_of_a_run_are_no_images(tmp_path: Path, record: str, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "grounded-seg-out"
    touch(tmp_path / "a.png", tmp_path / "masks" / "b.png", run / "c.png")
    (run / record).write_text(OURS[record])
    for name in ("overlays", "masks", "crops"):
        touch(run / name / "sub" / "a.png.png")
    with caplog.at_level(logging.INFO):
        assert find_images([tmp_path]).file_names == ("a.png", "grounded-seg-out/c.png", "masks/b.png")
    [note] = caplog.messages
    assert f"left out 3 folders with the pictures of earlier runs, such as {str(run / 'crops')!r}" in note
    assert find_images([run]).file_names == ("c.png",)
    assert find_images([run / "overlays"]).file_names == ("sub/a.png.png",)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a training"}', "\xff", "[" * 100_000])
def test_folders_beside_files_that_only_have_a_runs_names_are_searched(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "masks" / "b.png")
    for name in OURS:
        (tmp_path / name).write_text(text, encoding="latin-1")
    with caplog.at_level(logging.INFO):
        assert find_images([tmp_path]).file_names == ("masks/b.png",)
    assert caplog.messages == []


def test_a_folder_with_an_image_ending_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "frames.png" / "1.png")
    assert find_images([tmp_path]).file_names == ("frames.png/1.png",)


def test_no_images_is_an_error_that_lists_the_endings(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="jpg jpeg png webp bmp tif tiff gif") as raised:
        find_images([tmp_path])
    assert str(tmp_path) in str(raised.value)
    with pytest.raises(InputError, match="empty list"):
        find_images([])


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"no file or folder is at .*2\.png"):
        find_images([tmp_path / "1.png", tmp_path / "2.png"])


def test_a_folder_that_cannot_be_listed_is_an_error_or_stands_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "1.png", tmp_path / "closed" / "2.png", tmp_path / "open" / "3.png")
    scandir = os.scandir

    def guarded(folder: str | Path) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    # Not by chmod: root lists everything.
    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(InputError, match="closed' can't be listed \\(Permission denied\\)"):
        find_images([tmp_path / "closed"])
    assert find_images([tmp_path]).file_names == ("1.png", "closed", "open/3.png")
    with pytest.raises(ImageError, match="is a folder that can't be listed \\(Permission denied\\)"):
        read_image(tmp_path / "closed")


def test_what_lies_in_a_forbidden_folder_is_an_image_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "secret.png")
    look = os.stat

    def guarded(path: Any, **options: Any) -> os.stat_result:
        if os.fspath(path) == str(tmp_path / "secret.png") and options.get("follow_symlinks", True):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", guarded)
    assert find_images([tmp_path / "secret.png"]).file_names == ("secret.png",)
    with pytest.raises(ImageError, match="can't be reached"):
        read_image(tmp_path / "secret.png")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_a_list_names_images_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "a" / "2.png", tmp_path / "b" / "ü 3.jpg", tmp_path / "lists" / "x.png")
    # A single letter between zero bytes is in doubt: see test_given.py.
    listed = ["a/1.png", "", "./b" if end == "\0" else "b", "a/gone.png", "a/./1.png"]
    (tmp_path / "lists" / "all.txt").write_bytes(end.join(listed).encode())
    monkeypatch.chdir(tmp_path)
    found = find_images([PathList(Path("lists/all.txt"))])
    # From the current folder, as on the command line; what isn't there is told when it is read.
    assert (found.root, found.file_names) == (tmp_path, ("a/1.png", "a/gone.png", "b/ü 3.jpg"))


def test_only_names_that_end_with_zero_bytes_may_hold_line_breaks(tmp_path: Path) -> None:
    touch(tmp_path / "a\nb.png", tmp_path / "c\udcff.png")
    (tmp_path / "list").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in tmp_path.glob("*.png")))
    assert find_images([PathList(tmp_path / "list")]).file_names == ("a\nb.png", "c\udcff.png")


def test_a_long_list_is_cut_at_the_right_places(tmp_path: Path) -> None:
    names = [f"{number:0100}" for number in range(25_000)]
    (tmp_path / "list").write_text("\n".join(names) + "\n")
    assert list(PathList(tmp_path / "list").paths()) == names


def test_a_list_may_be_a_pipe(tmp_path: Path) -> None:
    # As of `@<(find ...)`: it can be read once only, from first to last, and from several roots.
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "2.png")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    listed = f"{tmp_path / 'a' / '1.png'}\n{tmp_path / 'b'}\n"
    writer = threading.Thread(target=pipe.write_text, args=(listed,))
    writer.start()
    found = find_images([PathList(pipe)])
    writer.join(10)
    assert (found.root, found.file_names) == (tmp_path, ("a/1.png", "b/2.png"))


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"list .*gone\.txt' can't be read"):
        find_images([PathList(tmp_path / "gone.txt")])
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match=r"list '.*empty\.txt' is empty"):
        find_images([PathList(tmp_path / "empty.txt")])


def test_a_name_takes_less_than_two_hundred_bytes(tmp_path: Path) -> None:
    n_names = 20_000
    (tmp_path / "list").write_text(
        "".join(f"photos/camera-1/2026-11-21-{number:07}.jpeg\n" for number in range(n_names))
    )
    tracemalloc.start()
    found = find_images([PathList(tmp_path / "list")])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.file_names) == n_names
    assert peak / n_names < 200


def test_one_root_is_kept_as_it_is_and_several_have_a_common_one(tmp_path: Path) -> None:
    assert common_root([Path("photos"), Path("photos")]) == (Path("photos"), ("", ""))
    assert common_root([tmp_path / "a" / "b", tmp_path / "a" / "c"]) == (tmp_path / "a", ("b/", "c/"))
    assert common_root([Path("a/b"), Path("a")]) == (Path.cwd() / "a", ("b/", ""))


def test_addresses_have_a_root_of_their_own() -> None:
    one, other = Address("s3://b/a/1"), Address("s3://b/a")
    assert common_root([one, one]) == (one, ("", ""))
    assert common_root([one, other]) == (other, ("1/", ""))
    assert common_root([one, Address("s3://c")]) == (Address("s3://"), ("b/a/1/", "c/"))
    assert root_from("s3://b/a/1") == one
    assert root_from("/a/b") == Path("/a/b")
    with pytest.raises(InputError, match="different kinds of storage"):
        common_root([one, Path("a")])
