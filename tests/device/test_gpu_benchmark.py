"""The benchmark for a GPU, tried out on the CPU at tiny size: every row is there, and comparisons compare."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

pytestmark = pytest.mark.release


def test_it_measures_compares_and_writes(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--tiny", "--repeats", "1", "--batches", "1", "2", "--output", str(tmp_path)]
    done = subprocess.run(
        ["bash", "benchmarks/gpu.sh", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    stages = {(row["batch"], row["stage"]) for row in figures["speed"]}
    assert stages == {(batch, stage) for batch in (1, 2) for stage in ("detector", "segmenter", "chain")}
    for row in figures["speed"]:
        assert row["images/s"] > 0
        assert math.isclose(row["share of the limit"] / row["images/s"], 1 / _images_at_the_limit(figures, row))
    assert [row["images in a call of SAM's encoder"] for row in figures["encoder"]] == [1, 2]
    held = {row["dtype"]: row for row in figures["against the CPU in float32"]}["torch.float32"]
    # The same machine in the same dtype: equal, and something was compared.
    assert held["equal tokens"] == "48 of 48"
    assert held["masks"] == "20 of 20"
    assert (held["most bins off"], held["equal pixels"], held["least mask IoU"]) == (0, 1, 1)
    assert figures["left_out"] == []
    assert "images/s" in done.stdout
    assert "must hold: tiny + tiny, equal pixels in float32: at least 0.9999; it is 1" in done.stdout
    assert "at least 20; not measured: of tiny models alone" in done.stdout


def _images_at_the_limit(figures: dict[str, list[dict[str, float]]], row: dict[str, object]) -> float:
    tflop = {"detector": 0.005, "segmenter": 0.001, "chain": 0.006}[str(row["stage"])]
    return figures["limits"][0]["matrix product TFLOP/s"] / tflop
