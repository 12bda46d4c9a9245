"""The commands of the table of faults: their inputs, how they are called, and what of their results is compared."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import PIL.Image
from coco_cases import truth, written
from fakes import painted
from warm_process import Warm

from grounded_seg.cli.exit_codes import Commands
from grounded_seg.review.decisions import What
from grounded_seg.review.page.viewed_run import ViewedRun

Files = Mapping[str, bytes]
"""By path below the results' folder."""
_BOXES = {"red": (2, 3, 12, 9), "green": (20, 15, 30, 25)}
N_PHOTOS, N_DECISIONS = 4, 6


def _as_they_are(files: Files) -> Files:
    return files


def _scores(files: Files) -> Files:
    """Reports without what depends on the moment."""
    report = json.loads(files["report.json"])
    return {"report.json": json.dumps({name: report[name] for name in report if name != "speed"}).encode()}


def _learnt(files: Files) -> Files:
    """What a training leaves, without its checkpoints and its times."""
    kept = ("metrics.jsonl", "adapter/adapter_model.safetensors", "adapter/adapter_config.json")
    return {name: files[name] for name in (f"out/{one}" for one in kept)}


def _without_manifest(files: Files) -> Files:
    return {name: content for name, content in files.items() if not name.endswith("run.json")}


def _decided(files: Files) -> Files:
    """Decisions without their times and numbers."""
    events = [json.loads(line) for line in files["run/review.jsonl"].splitlines()]
    kept = [[one["what"], one.get("image"), one.get("instances")] for one in events]
    return {"decided": json.dumps(kept).encode()}


@dataclass(frozen=True)
class Command:
    """One row of the table."""

    name: str
    arguments: tuple[str, ...]
    """`{here}` is the folder with `inputs` and `results`."""
    input: str
    """A file that is read, below `inputs`."""
    compared: Callable[[Files], Files] = _as_they_are
    """What of its results is the same each time."""
    again: tuple[str, ...] = ()
    """More arguments for the second time, such as `--resume`."""
    code: int = 0
    heavy: bool = False
    """Whether torch and transformers are needed."""
    program: str = "grounded_seg"
    whole: tuple[str, ...] = ("out",)
    """Files and folders below the results that are whole, or not there at all."""


_RUN = ("run", "red car; green", "{here}/inputs/photos", "-o", "{here}/results/out", "--batch-size", "1")
_EVAL = ("eval", "{here}/inputs/truth.json", "--images", "{here}/inputs/photos", "-o", "{here}/results/out")
_EXPORT = ("export", "{here}/inputs/truth.json", "--to", "yolo", "--images", "{here}/inputs/photos", "--copy-images")
_TRAIN = ("train", "{here}/inputs/data", "--detector", "{here}/inputs/base", "-o", "{here}/results/out")
_TRAIN += ("--device", "cpu", "--dtype", "float32", "--epochs", "2", "--batch-size", "4", "--split", "60/20/20")
_TRAIN += ("--no-report", "--save-steps", "1", "--quiet")
_MERGE = ("models", "merge", "{here}/inputs/base", "{here}/inputs/adapter", "{here}/results/out")
COMMANDS = (
    Command("run", _RUN, "photos/3.png", _without_manifest, ("--resume",), whole=("out/annotations.json",)),
    Command(
        "eval",
        (*_EVAL, "--json", "{here}/results/report.json", "--quiet"),
        "photos/3.png",
        _scores,
        ("--resume",),
        whole=("report.json",),
    ),
    Command("export", (*_EXPORT, "-o", "{here}/results/out"), "truth.json"),
    Command(
        "merge-runs",
        ("merge-runs", "{here}/inputs/a", "{here}/inputs/b", "-o", "{here}/results/out"),
        "b/results.jsonl",
        _without_manifest,
        whole=("out/annotations.json", "out/review.jsonl"),
    ),
    Command("validate --fix", ("validate", "{here}/inputs/truth.json", "--fix", "{here}/results/out"), "truth.json"),
    Command(
        "view --merge",
        ("view", "{here}/results/run", "--merge", "{here}/inputs/decided"),
        "decided/review.jsonl",
        whole=("run/review.jsonl",),
    ),
    Command("decisions", ("{here}/results/run",), "a/results.jsonl", _decided, program="decide", whole=()),
    Command("train", _TRAIN, "data/c.png", _learnt, ("--resume",), heavy=True, whole=()),
    Command(
        "train --workers 2", (*_TRAIN, "--workers", "2"), "data/c.png", _learnt, ("--resume",), heavy=True, whole=()
    ),
    Command(
        "models convert",
        ("models", "convert", "{here}/inputs/older", "{here}/results/out"),
        "older/model.safetensors",
        heavy=True,
    ),
    Command("models merge", _MERGE, "base/model.safetensors", heavy=True),
    Command("models fetch", ("models", "fetch", "owner/tiny", "--to", "{here}/results/out"), "", heavy=True, whole=()),
)


@click.group(cls=Commands)
def _own() -> None:
    pass


@_own.command("decide")
@click.argument("run", type=click.Path(path_type=Path))
def _decide(run: Path) -> None:
    with ViewedRun(run) as viewed:
        n_done = sum(one["accepted"] for one in viewed.summary()["classes"])
        for number in range(n_done, N_DECISIONS):
            image, key = divmod(number, 2)
            viewed.decide(image, What.ACCEPT, [key])
            click.echo(number)


def decide(run: str) -> None:
    """Accept the instances of a run, one after the other from where it stands, and print what was answered."""
    _own(["decide", run])


def _photos(folder: Path, first: int, n: int) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + n):
        shift = number
        boxes = {name: (x0 + shift, y0, x1 + shift, y1) for name, (x0, y0, x1, y1) in _BOXES.items()}
        PIL.Image.fromarray(painted(40, 30, **boxes)).save(folder / f"{number}.png")


def prepare_light(here: Path, warm: Warm) -> None:
    """Make the inputs of the commands that need no torch."""
    inputs = here / "inputs"
    _photos(inputs / "photos", 1, N_PHOTOS)
    boxes = [(colour, box) for colour, box in enumerate(_BOXES.values(), start=1)]
    objects = [
        (number, colour, (x0 + number, y0, x1 - x0, y1 - y0))
        for number in range(1, N_PHOTOS + 1)
        for colour, (x0, y0, x1, y1) in boxes
    ]
    document = truth(*objects, n_images=N_PHOTOS, classes=("red", "green"))
    for image in document["images"]:
        image |= {"width": 40, "height": 30}
    for one in document["annotations"]:
        # So that there is something to repair.
        del one["iscrowd"]
    written(inputs / "truth.json", document)
    for name, first in (("a", 1), ("b", 11)):
        _photos(here / f"photos-{name}", first, 3)
        arguments = ["run", "red car; green", f"{here}/photos-{name}", "-o", f"{inputs}/{name}", "--save", "none"]
        child = warm.start(arguments, cwd=here)
        assert child.wait() == 0, child.err
    with ViewedRun(inputs / "b") as viewed:
        viewed.decide(0, What.REJECT, [1])
    (here / "results").mkdir()
    shutil.copytree(inputs / "a", here / "results" / "run")
    shutil.copytree(inputs / "a", inputs / "decided")
    with ViewedRun(inputs / "decided") as viewed:
        for image in range(3):
            viewed.decide(image, What.ACCEPT, [0, 1])


def prepare_heavy(here: Path) -> dict[str, bytes]:
    """Make the inputs of the commands that need torch; gives the files of the model that is to be fetched."""
    from older_florence import older_folder
    from tiny_florence import save_adapter, save_tiny_florence
    from train_cases import write_coco

    inputs = here / "inputs"
    write_coco(inputs / "data")
    save_tiny_florence(inputs / "base")
    save_adapter(inputs / "adapter")
    (inputs / "older").mkdir()
    older_folder(inputs / "older")
    return {path.name: path.read_bytes() for path in (inputs / "base").iterdir()}
