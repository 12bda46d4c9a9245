"""Two processes on the CPU train as one: the same rows, one of them writes, and a resumed training is the same."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from tiny_florence import save_tiny_florence
from train_cases import write_coco

PROGRAM = """
import json, os, sys
from dataclasses import replace
from pathlib import Path

import torch
from train_cases import tiny_settings

from grounded_seg.train import train

torch.set_num_threads(1)
data, run, base, resume = sys.argv[1:]
seen = []


def n_images(answered):
    return {"n_images": float(len({one.question.example.image for one in answered}))}


settings = tiny_settings(
    Path(data), Path(run), Path(base), batch_size=1, epochs=1, dropout=0.1, save_steps=1, eval_steps=1,
    split=(34, 33, 33), metrics=(n_images,),
)
train(settings, resume=resume == "resume", watcher=seen.append)
if os.environ["RANK"] == "1":
    assert seen == [], "only the first process tells"
"""


def run_both(*words: object) -> None:
    """Start the program twice, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [one.communicate()[1] for one in started]
    assert [one.returncode for one in started] == [0, 0], "\n".join(errors)


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.release
def test_two_processes_share_steps_and_validation_and_are_resumed(tmp_path: Path) -> None:
    base, data = save_tiny_florence(tmp_path / "base"), write_coco(tmp_path / "data").parent
    run_both(data, tmp_path / "run", base, "anew")
    whole = rows(tmp_path / "run")
    assert [row["step"] for row in whole if "loss" in row] == [1, 2]
    # Each process answers for its own images, and both images are measured.
    assert {row["valid_n_images"] for row in whole if "valid_n_images" in row} == {2.0}
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in (checkpoints / "checkpoint-1").glob("rng_state_*")} == {
        "rng_state_0.pt",
        "rng_state_1.pt",
    }
    (checkpoints / "checkpoint-2" / "trainer_state.json").unlink()
    run_both(data, tmp_path / "run", base, "resume")
    assert rows(tmp_path / "run") == whole
