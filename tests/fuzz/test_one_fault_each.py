"""Whatever one value of a file in JSON is, or if it is missing, a reader reads or refuses the file."""

from pathlib import Path

import pytest
from fuzz_inputs import one_fault_each
from fuzz_readers import LIGHT, JsonInputs, Reader
from fuzz_run import try_edits
from fuzz_torch_readers import TORCH

IN_JSON = [one for one in (*LIGHT, *TORCH) if isinstance(one.inputs, JsonInputs) and not one.is_slow]


@pytest.mark.release
@pytest.mark.parametrize("reader", IN_JSON, ids=lambda one: one.name)
def test_a_value_that_is_missing_or_of_another_kind_is_refused_or_read(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    tried = try_edits(reader, tmp_path / "in", one_fault_each)
    assert [f"{one.kind} at {one.where}: {one.content[:300]!r}" for one in tried.escapes.values()] == []
    assert tried.n >= 20
