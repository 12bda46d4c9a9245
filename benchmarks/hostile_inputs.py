"""Give every hostile input to its command, and compare with the same command on a good one.

    python benchmarks/hostile_inputs.py [--cases ../shared/cases/hostile] [--only w-adapter] [--output hostile.json]

Each is a small file that a stranger may send. It has to end in the exit code of what it is, within 5 s and 500 MB more
than the good file takes, with no control character on either stream and one line of error. Where the fault is one row's
of a data set, the row is left out and the exit code is 0. Both commands run in a process of their own, three times the
good one, once the hostile one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from own_process import MEASURED
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT.parent / "shared" / "cases" / "hostile"
DEMO = ROOT / "checkpoints" / "demo"
SIZES = ((480, 720), (640, 480), (853, 480))
CLASSES = ("car", "ball", "box", "tree", "star", "house")
MOST_S, MOST_MB = 5.0, 500.0
N_STEPS = 6
LINE_ENDS = "\n"


@dataclass(frozen=True)
class Given:
    """What a command line is made of, for one input."""

    folder: Path
    """An empty one of its own."""
    case: Path | None
    """The folder of the hostile file; None for the good one."""
    detector: Path
    trained: Path
    """The folder of a training of `N_STEPS` steps with `train_words`, by that detector."""
    run: Path
    """The folder of a run of `finished_run_words`."""

    def replaced(self, folder: Path) -> Path:
        """A folder of good files with the hostile ones over them."""
        for file in () if self.case is None else self.case.iterdir():
            shutil.copyfile(file, folder / file.name)
        return folder


def coco_document() -> dict[str, Any]:
    """Three images with a box each, and masks as polygons."""
    shapes = [[10, 10, 50, 10, 50, 60, 10, 60]]
    images = [
        {"id": number, "file_name": f"0000{number - 1}.png", "width": width, "height": height}
        for number, (width, height) in enumerate(SIZES, start=1)
    ]
    return {
        "info": {"version": "1"},
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": number,
                "bbox": [10, 10, 40, 50],
                "area": 2000,
                "segmentation": shapes,
                "iscrowd": 0,
                "score": 0.9,
            }
            for number in (1, 2, 3)
        ],
    }


def coco_file(folder: Path, name: str = "input.json") -> Path:
    """A good COCO file, which is ground truth, predictions and labels to export."""
    path = folder / name
    path.write_text(json.dumps(coco_document()), encoding="utf-8")
    return path


def journal(folder: Path, name: str) -> Path:
    """A journal of the same images, each with the whole image found."""
    rows = []
    for number, (width, height) in enumerate(SIZES):
        found = {
            "bbox": [10.0, 10.0, 40.0, 50.0],
            "area": 2000,
            "segmentation": [],
            "iscrowd": 0,
            "score": 0.9,
            "detector_bbox": [10.0, 10.0, 40.0, 50.0],
            "attributes": {"label": "ball", "prompt": "ball", "detector_score": 0.9, "mask_score": None},
        }
        row = {"file_name": f"0000{number}.png", "status": "done", "width": width, "height": height}
        rows.append({**row, "instances": [found], "reason": None, "error": None})
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pictures(folder: Path, n: int = 6) -> Path:
    """Small images 0.png, 1.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        Image.new("RGB", (64, 48), (40 * number, 90, 120)).save(folder / f"{number}.png")
    return folder


def training_coco(folder: Path) -> Path:
    """A data set of six images to train on."""
    pictures(folder)
    boxes = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
    document = {
        "images": [{"id": n + 1, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(6)],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "ball"}],
        "annotations": [{"id": n + 1, "image_id": n + 1, "category_id": n % 2 + 1, **boxes} for n in range(6)],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def training_jsonl(folder: Path) -> Path:
    """The same as rows."""
    pictures(folder)
    suffix = "car<loc_10><loc_20><loc_300><loc_400>"
    rows = [json.dumps({"image": f"{n}.png", "prefix": "<OD>", "suffix": suffix}) for n in range(6)]
    (folder / "annotations.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def training_yolo(folder: Path) -> Path:
    """The same as YOLO has it."""
    pictures(folder / "images" / "train")
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True)
    for number in range(6):
        (labels / f"{number}.txt").write_text("0 .5 .5 .2 .2\n", encoding="utf-8")
    text = "path: .\ntrain: images/train\nval: images/train\nnames:\n  0: car\n  1: ball\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder


def train_words(dataset: Path, output: Path, detector: Path) -> list[str]:
    """A training of a few steps, of which nothing is measured but the loss."""
    return [
        *(
            "train",
            str(dataset),
            "-o",
            str(output),
            "--detector",
            str(detector),
            "--device",
            "cpu",
            "--dtype",
            "float32",
        ),
        *("--max-steps", str(N_STEPS), "--batch-size", "2", "--split", "60/20/20", "--save-steps", str(N_STEPS)),
        *("--best-metric", "loss", "--no-report"),
    ]


def finished_run_words(images: Path, output: Path, detector: Path) -> list[str]:
    """A run of boxes over a few images."""
    models = ("--detector", str(detector), "--adapter", "none", "--device", "cpu", "--dtype", "float32")
    return ["run", "ball", str(images), "-o", str(output), "--boxes-only", *models]


def eval_truth(given: Given) -> list[str]:
    """Ground truth."""
    truth = given.replaced(coco_file(given.folder).parent) / "input.json"
    return ["eval", str(truth), "--predictions", str(coco_file(given.folder, "predictions.json"))]


def eval_predictions(given: Given) -> list[str]:
    """Predictions, a line each."""
    found = given.replaced(journal(given.folder, "input.jsonl").parent) / "input.jsonl"
    return ["eval", str(coco_file(given.folder, "truth.json")), "--predictions", str(found)]


def fix(given: Given) -> list[str]:
    """A file to repair."""
    path = given.replaced(coco_file(given.folder).parent) / "input.json"
    return ["validate", str(path), "--fix", str(given.folder / "fixed.json")]


def export(given: Given) -> list[str]:
    """A file to export."""
    path = given.replaced(coco_file(given.folder).parent) / "input.json"
    return ["export", str(path), "-o", str(given.folder / "out"), "--to", "yolo"]


def dry_run(make: Callable[[Path], Path]) -> Callable[[Given], list[str]]:
    """A data set to train on."""

    def words(given: Given) -> list[str]:
        dataset = given.replaced(make(given.folder / "data"))
        return [*train_words(dataset, given.folder / "out", given.detector), "--dry-run"]

    return words


def settings(given: Given) -> list[str]:
    """A file of settings."""
    dataset = training_coco(given.folder / "data")
    (given.folder / "c.yaml").write_text("lr: 0.001\n", encoding="utf-8")
    name = "c.yaml" if given.case is None else next(given.case.iterdir()).name
    config = given.replaced(given.folder) / name
    return [*train_words(dataset, given.folder / "out", given.detector), "--dry-run", "--config", str(config)]


def resumed_training(inside: str) -> Callable[[Given], list[str]]:
    """A training to resume, with one of its files replaced."""

    def words(given: Given) -> list[str]:
        output = shutil.copytree(given.trained, given.folder / "trained")
        given.replaced(output / inside)
        return [*train_words(given.trained.parent / "data", output, given.detector), "--resume"]

    return words


def run_words(given: Given, *more: str) -> list[str]:
    """A run over one image, of boxes only."""
    image = pictures(given.folder / "images", 1) / "0.png"
    return ["run", "red car", str(image), "-o", str(given.folder / "out"), "--device", "cpu", *more]


def journal_to_merge(given: Given) -> list[str]:
    """A run whose journal was replaced."""
    run = given.replaced(shutil.copytree(given.run, given.folder / "run"))
    return ["merge-runs", str(run), "-o", str(given.folder / "out")]


def prompts(given: Given) -> list[str]:
    """A file of prompts."""
    (given.folder / "classes.yaml").write_text("red car: car\nlorry: truck\n", encoding="utf-8")
    classes = given.replaced(given.folder) / "classes.yaml"
    words = run_words(given, "--boxes-only", "--detector", str(given.detector), "--adapter", "none")
    return [words[0], f"@{classes}", *words[2:]]


def image(given: Given) -> list[str]:
    """A picture."""
    path = pictures(given.folder / "images", 1) / "0.png" if given.case is None else next(given.case.iterdir())
    words = run_words(given, "--boxes-only", "--detector", str(given.detector), "--adapter", "none")
    return [*words[:2], str(path), *words[3:]]


def part(name: str, *more: str) -> Callable[[Given], list[str]]:
    """A part of the demo in a folder of its own."""

    def words(given: Given) -> list[str]:
        folder = given.replaced(shutil.copytree(DEMO / name, given.folder / name))
        return run_words(given, f"--{name}", str(folder), *more)

    return words


WITH_DEMO = ("--boxes-only", "--detector", str(DEMO / "detector"))
KINDS: dict[str, tuple[Callable[[Given], list[str]], Collection[int]]] = {
    "gt-": (eval_truth, (3,)),
    "pred-jsonl-": (eval_predictions, (3,)),
    "fix-": (fix, (0, 3)),
    "export-": (export, (3,)),
    "train-coco-": (dry_run(training_coco), (0, 3)),
    "train-jsonl-": (dry_run(training_jsonl), (0,)),
    "train-yolo-yaml-": (dry_run(training_yolo), (3,)),
    "config-": (settings, (2,)),
    "train-manifest-": (resumed_training("."), (2,)),
    "train-metrics-": (resumed_training("."), (3,)),
    "trainer-state-": (resumed_training(f"checkpoints/checkpoint-{N_STEPS}"), (2,)),
    "journal-": (journal_to_merge, (3,)),
    "prompts-yaml": (prompts, (2,)),
    "img-": (image, (3,)),
    "adapter-record-": (part("adapter", *WITH_DEMO), (4,)),
    "w-adapter-": (part("adapter", *WITH_DEMO), (4,)),
    "w-det-": (part("detector", "--boxes-only", "--adapter", "none"), (4,)),
    "w-seg-": (part("segmenter"), (4,)),
}
"""What each kind of case is given to, by the beginning of its name, and the exit codes that it may end in."""


def kind_of(name: str) -> tuple[Callable[[Given], list[str]], Collection[int]]:
    """The command of a case."""
    return next(kind for prefix, kind in KINDS.items() if name.startswith(prefix))


def controls_in(text: str) -> list[str]:
    """The characters of a stream that would steer a terminal, as escapes."""
    return sorted({ascii(one) for one in text if one not in LINE_ENDS and not one.isprintable()})


def run_once(words: Sequence[str]) -> tuple[int, str, str, float, float]:
    """Exit code, streams, seconds and peak memory in MB of a command."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURED, *words]
    done = subprocess.run(command, check=False, capture_output=True, cwd=ROOT, env=environment, timeout=600)
    seconds = time.perf_counter() - started
    out, err = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
    err, _, peak = err.rpartition("peak ")
    return done.returncode, out, err, seconds, int(peak) / 1024


def made(words: list[str], output: Path) -> Path:
    """The folder that a command writes."""
    code, _, err, _, _ = run_once(words)
    if code:
        raise SystemExit(f"{words[0]} failed: {err}")
    return output


def measure(case: Path, good: dict[str, tuple[float, float]], folder: Path, trained: Path, run: Path) -> dict[str, Any]:
    """What came of one case, beside the good input of its kind."""
    make, codes = kind_of(case.name)
    prefix = next(prefix for prefix in KINDS if case.name.startswith(prefix))
    if prefix not in good:
        runs = []
        for number in range(3):
            own = folder / f"good-{prefix}{number}"
            own.mkdir()
            code, _, err, seconds, peak_mb = run_once(make(Given(own, None, DEMO / "detector", trained, run)))
            if code:
                raise SystemExit(f"{prefix}: the good input failed: {err}")
            runs.append((seconds, peak_mb))
        good[prefix] = min(one[0] for one in runs), min(one[1] for one in runs)
    own = folder / case.name
    own.mkdir()
    code, out, err, seconds, peak_mb = run_once(make(Given(own, case, DEMO / "detector", trained, run)))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    row = {
        "case": case.name,
        "exit_code": code,
        "more_s": round(seconds - good[prefix][0], 2),
        "more_mb": round(peak_mb - good[prefix][1], 1),
        "controls": controls_in(out + err),
        "n_errors": len(errors),
        "said": (errors or err.splitlines() or out.splitlines() or [""])[-1][:200],
    }
    is_right = code in codes and not row["controls"] and len(errors) <= 1 and "Traceback" not in err
    return row | {"is_right": is_right and row["more_s"] <= MOST_S and row["more_mb"] <= MOST_MB}


def main() -> int:
    """Print a row for each case; 1 if one isn't as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--only", default="", help="Beginning of the names of the cases.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    cases = sorted(path for path in arguments.cases.glob(f"{arguments.only}*") if path.is_dir())
    if not cases:
        raise SystemExit(f"no case is in {arguments.cases}")
    rows, good = [], dict[str, tuple[float, float]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        detector, trained, run = DEMO / "detector", folder / "trained", folder / "run"
        if any(case.name.startswith(("train-m", "trainer")) for case in cases):
            made(train_words(training_coco(folder / "data"), trained, detector), trained)
        if any(case.name.startswith("journal") for case in cases):
            made(finished_run_words(pictures(folder / "images", 3), run, detector), run)
        print(f"{'case':44} {'exit':>4} {'more s':>7} {'more MB':>8}  said")
        for case in cases:
            row = measure(case, good, folder, trained, run)
            rows.append(row)
            mark = "" if row["is_right"] else f"  <- wrong {row['controls'] or ''}"
            print(
                f"{row['case']:44} {row['exit_code']:4} {row['more_s']:7.2f} {row['more_mb']:8.1f}  {row['said']}{mark}"
            )
    wrong = [row["case"] for row in rows if not row["is_right"]]
    print(f"{len(rows) - len(wrong)} of {len(rows)} end as they have to")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({"cases": rows}, indent=1) + "\n", encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
