"""Whatever a file holds, a reader reads or refuses it: all that ever escaped; in the long tests 300 inputs each."""

from pathlib import Path

import pytest
from fuzz_readers import LIGHT, Reader
from fuzz_run import Tried, quiet, table, try_many, try_once
from fuzz_torch_readers import TORCH

N, N_FEW = 300, 15
SEED = 7
CORPUS = Path(__file__).parent / "corpus"
QUICK = [one for one in (*LIGHT, *TORCH) if not one.is_slow]
SLOW = [one for one in TORCH if one.is_slow]
_tried: dict[str, Tried] = {}


def check(tried: Tried) -> None:
    assert [f"{one.kind} at {one.where}: {one.content[:300]!r}" for one in tried.escapes.values()] == []


@pytest.mark.parametrize("reader", QUICK, ids=lambda one: one.name)
def test_a_reader_refuses_or_reads_a_few(reader: Reader, tmp_path: Path) -> None:
    tried = Tried()
    try_many(reader, tmp_path / "in", N_FEW, SEED, tried)
    check(tried)


@pytest.mark.release
@pytest.mark.parametrize("reader", [*QUICK, *SLOW], ids=lambda one: one.name)
def test_a_reader_refuses_or_reads(reader: Reader, tmp_path: Path) -> None:
    tried = _tried[reader.name] = Tried()
    try_many(reader, tmp_path / "in", N, SEED, tried)
    check(tried)
    # The file as it is is read; else nothing but the parser was tried.
    assert tried.n_refused < tried.n


@pytest.mark.parametrize("folder", sorted(CORPUS.iterdir()), ids=lambda one: one.name)
def test_what_once_escaped_is_refused(folder: Path, tmp_path: Path) -> None:
    [reader] = [one for one in (*LIGHT, *TORCH) if one.name.replace(" ", "-").replace("/", "-") == folder.name]
    files = sorted(folder.iterdir())
    assert files
    tried = Tried()
    (tmp_path / "in").mkdir()
    with quiet():
        reader.prepare(tmp_path / "in")
        for file in files:
            try_once(reader, tmp_path / "in", file.read_bytes(), tried)
    check(tried)


@pytest.mark.release
def test_no_reader_had_fewer_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    if not _tried:
        pytest.skip("no reader was tried in this process")
    with capsys.disabled():
        print(f"\n{table(_tried)}")
    assert {name: one.n for name, one in _tried.items() if one.n < N} == {}


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 1_000_000


def test_an_escape_is_noticed(tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        if b"x" in (folder / "in").read_bytes():
            raise LookupError("not ours")

    reader = Reader("planted", "in", LIGHT[0].inputs, read)
    tried = Tried()
    for content in (b"good", b"x", b"xx"):
        try_once(reader, tmp_path, content, tried)
    [one] = tried.escapes.values()
    assert (tried.n, one.kind, one.content) == (3, "LookupError", b"x")
