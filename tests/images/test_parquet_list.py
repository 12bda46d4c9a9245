"""Columns of Parquet files as lists."""

from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, picture

from grounded_seg.errors import InputError, UsageError
from grounded_seg.images.find import find_images
from grounded_seg.images.given import given_from

pyarrow: Any = pytest.importorskip("pyarrow", reason="lists in Parquet need pyarrow, of the extra cloud")


def write(path: Path, columns: dict[str, Any], rows_in_group: int = 2) -> Path:
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_in_group)
    return path


KINDS = (pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_column_names_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["b.png", None, "a.png", "", "c.png", "a.png"]
    write(tmp_path / "list.parquet", {"n": list(range(6)), "url": pyarrow.array(texts).cast(kind)})
    assert find_images([given_from("@list.parquet:url")]).file_names == ("a.png", "b.png", "c.png")


def test_a_list_and_its_images_may_be_elsewhere(bucket: Bucket, tmp_path: Path) -> None:
    addresses = [bucket.put(f"images/{name}.png", picture()) for name in "abc"]
    bucket.put("list.parquet", write(tmp_path / "list", {"image": addresses}).read_bytes())
    found = find_images([given_from(f"@{bucket.url}/list.parquet:image")])
    assert (str(found.root), found.file_names) == (f"{bucket.url}/images", ("a.png", "b.png", "c.png"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@list.parquet", "say which column, as in @list.parquet:COLUMN; the columns are n, url"),
        ("@list.parquet:link", "has no column 'link' or several; the columns are n, url"),
        ("@list.parquet:n", "column 'n' holds int64, not texts; the columns are n, url"),
        ("@gone.parquet:url", "can't be read (No such file or directory)"),
        ("@bad.parquet:url", "is no Parquet file that can be read"),
        ("@empty.parquet:url", "list 'empty.parquet' is empty"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "list.parquet", {"n": [1], "url": ["a.png"]})
    write(tmp_path / "empty.parquet", {"url": pyarrow.array([], pyarrow.string())})
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else, PAR1")
    with pytest.raises(InputError) as raised:
        find_images([given_from(text)])
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_pyarrow_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "list.parquet", {"url": ["a.png"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs the package pyarrow; install grounded-seg\[cloud\]"):
        find_images([given_from(f"@{path}:url")])
