"""Show that two checkouts of this project write the same bytes, as after a change that must not change any result.

    python benchmarks/same_bytes.py BEFORE [AFTER] [--keep FOLDER] [--only CASE ...] [--training]

BEFORE and AFTER are the top folders of two checkouts; AFTER is the one of this script unless you name another. Inputs
are made once: scenes that BEFORE renders, in many forms, and broken files. Then each checkout runs the same commands
on them with the demo's weights, on the CPU in float32. What they write is compared file by file, and their exit codes.
A table says for each case how many files were compared and, where they differ, the first that does, with the place in
it where it is JSON. The script ends with 1 if anything differs, or if a case compared fewer files than it should.

What people read (tables, messages) is not compared, and neither is what tells the time or the place: see DROPPED.

With --keep, FOLDER holds the inputs and the results of BEFORE, and a later call runs AFTER alone. They are made anew
where BEFORE, this script or an installed package has changed. AFTER's results stay there too, until the next call, and
a log of each case with all that its commands said. --only takes some cases, and those whose results they need;
--training adds one that tunes the detector.

It needs Linux. Each checkout's commands are forked from one process that has imported torch and the other libraries,
but nothing of the project: so a command starts as `python -m grounded_seg.cli` does, only sooner.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from safetensors.numpy import load_file, save_file

DROPPED: Mapping[str, frozenset[str]] = {
    # Seconds of the stages; versions, of which the project's own may change; where the weights and the images lie.
    "run.json": frozenset({"seconds", "versions", "path", "root"}),
    # Seconds and images per second; sentences for people; versions.
    "eval.json": frozenset({"speed", "notes", "versions"}),
}
"""Keys that are left out before files of these names are compared, wherever in the file they are."""
OWN_VERSION = re.compile(rb'("Made by grounded-seg", ?"version": ?)"[^"]*"')
"""In COCO files; the project's own may change."""
UNCOMPARED_FOLDERS = frozenset({"checkpoints", "kept-by-eval", "cut-off-by-eval"})
"""What `train --resume` and `eval --resume` need: it holds times and paths, and its form may change."""
CODES_FILE, STAMP_FILE = "exit-codes.json", "same_bytes.json"
LIBRARIES = (
    *("torch", "torchvision.transforms.v2", "transformers", "peft", "segment_anything", "cv2"),
    *("pycocotools.mask", "scipy.optimize", "shapely", "rich.progress"),
)
"""Imported once for all commands of a checkout; one that isn't there is left to the commands."""
INPUTS = "../../inputs"
"""From the folder of a case, in which its commands run."""
DEMO = ("--preset", "demo", "--device", "cpu", "--dtype", "float32")
ASKED = ("car; ball;tree; red star", "--score-threshold", "0.3")
ALL_PICTURES = ("--save", "overlay", "--save", "masks", "--save", "crops")
N_SCENES, N_MORE_SCENES = 12, 4
N_LINES_AT_KILL = 4
MAX_SHOWN = 60
"""Characters of a value in the table."""


class UnexpectedError(Exception):
    """A command of BEFORE, or a case of either, that doesn't do what the case is there to show."""


# What both checkouts get


def make_inputs(before: Path, inputs: Path) -> None:
    """Make all inputs; only the scenes themselves come from a checkout."""
    for name, first, n_scenes in (("scenes", 0, N_SCENES), ("more", 40, N_MORE_SCENES)):
        script = before / "benchmarks" / "render_dataset.py"
        command = [sys.executable, str(script), str(inputs / name), "--first", str(first), "--scenes", str(n_scenes)]
        subprocess.run(command, check=True, env=environment(before), stdout=subprocess.DEVNULL)
    scenes = sorted((inputs / "scenes" / "images").iterdir())
    make_photos(scenes, inputs / "photos")
    for path in sorted((before / "examples").glob("scene-*.jpg")):
        shutil.copy(path, inputs / "photos" / path.name)
    make_labels(inputs)
    make_texts(inputs)
    shutil.copytree(before / "checkpoints" / "demo", inputs / "demo")
    make_older_adapter(inputs / "demo" / "adapter", inputs / "older-adapter")


def make_photos(scenes: Sequence[Path], photos: Path) -> None:
    """Write scenes in all forms that a folder may hold, some of which can't be read."""
    pictures = [PIL.Image.open(path).convert("RGB") for path in scenes]
    turned, clear, grey = PIL.Image.Exif(), pictures[2].copy(), pictures[3].convert("L")
    turned[0x0112] = 6
    clear.putalpha(PIL.Image.linear_gradient("L").resize(clear.size))
    levels = PIL.Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    forms: Iterable[tuple[str, PIL.Image.Image, dict[str, Any]]] = (
        ("a.jpg", pictures[0], {"quality": 92}),
        ("b.JPG", pictures[1], {"quality": 92}),
        ("turned.jpg", pictures[0], {"quality": 92, "exif": turned}),
        ("clear.png", clear, {}),
        ("grey.png", grey, {}),
        ("grey-16-bit.tif", levels, {}),
        ("sub/a.jpg", pictures[4], {"quality": 92}),
        ("sub/a.png", pictures[5], {}),
        ("sub/deep/er/c.bmp", pictures[9], {}),
        ("like.jpg/one two.png", pictures[7], {}),
        ("grün/süß.webp", pictures[10], {"lossless": True}),
        ("small.png", pictures[11].resize((31, 20)), {}),
        ("moving.gif", pictures[6].quantize(64), {"save_all": True, "append_images": [pictures[7].quantize(64)]}),
    )
    for name, picture, options in forms:
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
    whole = (photos / "a.jpg").read_bytes()
    (photos / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "sub" / "empty.png").touch()
    (photos / "words.png").write_text("This is no picture.\n")


def make_labels(inputs: Path) -> None:
    """Write a COCO file with all that such files may hold, on images in folders, two of which have one name."""
    truth = json.loads((inputs / "scenes" / "instances.json").read_text())
    images = inputs / "labels" / "images"
    kept = truth["images"][:6]
    for number, image in enumerate(kept):
        origin = inputs / "scenes" / "images" / image["file_name"]
        image |= {"file_name": ("a/one.png", "b/one.png", "b/one.jpg")[number] if number < 3 else f"{number}.png"}
        image |= {"license": 1, "date_captured": "2020-02-02", "flags": ["night", number]}
        (images / image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.open(origin).save(images / image["file_name"])
    by_id = {image["id"]: image for image in kept}
    labels = [label for label in truth["annotations"] if label["image_id"] in by_id]
    labels = [label | further_label(label, number, by_id[label["image_id"]]) for number, label in enumerate(labels)]
    names = ["car", "ball/disc", "box & <crate>", "Bäume", "star", 'house "small"']
    categories = [
        {**category, "name": name, "supercategory": "thing", "colour": "#ff0000"}
        for category, name in zip(truth["categories"], names, strict=True)
    ]
    document = {
        "info": {"description": "scenes", "year": 2020},
        "licenses": [{"id": 1, "name": "none"}],
        "videos": [{"id": 1, "name": "walk"}],
        "images": kept,
        "annotations": labels,
        "categories": categories,
    }
    (inputs / "labels" / "labels.json").write_text(json.dumps(document))


def further_label(label: Mapping[str, Any], number: int, image: Mapping[str, Any]) -> dict[str, Any]:
    """Give what one of the labels has beside, or instead of, its run lengths."""
    x, y, width, height = label["bbox"]
    polygon = [x, y, x + width, y, x + width, y + height / 2, x + width / 2, y + height, x, y + height]
    match number % 6:
        case 0:
            return {"attributes": {"label": "a car", "sure": True, "level": 2, "tags": ["a", "b"], "note": None}}
        case 1:
            return {"segmentation": [polygon], "score": 0.25 + number / 100}
        case 2:
            return {"segmentation": [polygon, [1, 1, 9, 1, 5, 7.5]], "attributes": {"text": "zwölf", "share": 0.5}}
        case 3:
            return {"segmentation": [], "score": 0.75, "track": number}
        case 4:
            n_first = int(x) * image["height"] + int(y)
            n_rest = image["height"] * image["width"] - n_first - 200
            counts = [n_first, 100, 50, 50, n_rest] if n_rest >= 0 else [0, 200, n_first + n_rest]
            return {"segmentation": {"size": [image["height"], image["width"]], "counts": counts}, "iscrowd": 1}
        case _:
            return {}


def make_texts(inputs: Path) -> None:
    """Write lists, prompts and broken COCO files."""
    scenes = "../../inputs/scenes/images"
    texts = {
        "list.txt": f"{scenes}\n{INPUTS}/more/images/00040.png\r\n\n{INPUTS}/missing.png\n./{INPUTS}/more/images/\n",
        "few.txt": "".join(f"{scenes}/{number:05}.png\n" for number in (0, 3, 9, 10)),
        "classes.yaml": "red car: car\ncar: car\nball: ball\nno: box\n'tree': tree\n",
        "api.py": API_SCRIPT,
    }
    texts |= {f"broken/{name}.json": text for name, text in broken_files().items()}
    for name, text in texts.items():
        path = inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (inputs / "broken" / "latin-1.json").write_bytes(texts["broken/sound.json"].replace("car", "Bär").encode("latin-1"))


API_SCRIPT = f"""\
import json
from pathlib import Path

from PIL import Image

from grounded_seg import GroundedSegmenter

segmenter = GroundedSegmenter.from_preset("demo", device="cpu", dtype="float32")
result = segmenter("{INPUTS}/photos/scene-1.jpg", "red car; ball")
Path("coco.json").write_text(json.dumps(result.to_coco()))
Image.fromarray(result.draw()).save("drawn.png")
found = []
paths = [f"{INPUTS}/photos/{{name}}" for name in ("a.jpg", "broken.jpg", "turned.jpg", "grey.png")]
for result in segmenter.stream(paths, ["car", "ball"], batch_size=2):
    reason, instances = getattr(result, "reason", None), getattr(result, "instances", ())
    boxes = [(one.detection.label, one.detection.score, one.box_xyxy) for one in instances]
    found.append((str(result.path), reason, boxes, None if reason else result.to_coco()))
Path("stream.json").write_text(json.dumps(found))
"""
"""What the README shows of Python."""


def broken_files() -> dict[str, str]:
    """Make COCO files that are broken as text, or in what they say."""
    images: list[dict[str, Any]] = [
        {"id": 1, "file_name": "00000.png", "width": 480, "height": 720},
        {"id": 2, "file_name": "00001.png", "width": 480, "height": 480},
    ]
    box = {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30.5, 40], "area": 1220, "iscrowd": 0, "segmentation": []}
    classes = [{"id": 1, "name": "car"}, {"id": 2, "name": "ball"}]
    sound = {"images": images, "annotations": [{"id": 1, **box}], "categories": classes}
    text = json.dumps(sound)
    polygon = [10, 20, 40, 20, 40, 60, 10, 60]
    odd_labels: list[dict[str, Any]] = [
        *({"id": 1}, {"id": "1", "image_id": "1"}, {"id": 2.0, "category_id": 7}, {"id": -3, "image_id": 2}),
        *({"bbox": "[10, 20, 30, 40]"}, {"bbox": "10 20 30 40"}, {"bbox": [470, 700, 30, 40]}, {"bbox": [1, 2, 0, -1]}),
        *({"bbox": None, "segmentation": [polygon]}, {"bbox": [500, 900, 3, 3]}, {"area": "many"}, {"area": 3}),
        *({"segmentation": polygon}, {"segmentation": [polygon, [1, 2], [900, 900, 950, 900, 950, 950]]}),
        *({"segmentation": str([polygon])}, {"segmentation": None}, {"segmentation": {}}, {"iscrowd": True}),
        {"segmentation": {"size": [480, 720], "counts": [1000, 500, 344_100]}},
        {"segmentation": {"size": [720, 480], "counts": [1000, 500, 1]}},
        {"segmentation": {"size": [720, 480], "counts": "no run lengths"}},
        *({"iscrowd": "1", "segmentation": [polygon]}, {"score": "0.5"}, {"score": 1.5}, {"score": None}),
    ]
    odd_images = [
        {"id": 1, "file_name": "00000.png"},
        {"id": 1, "file_name": "C:\\pictures\\00001.png", "width": "480", "height": 480.0},
        *({"id": "3", "file_name": "/tmp/../00002.png"}, {"id": 4}, {"id": 5, "file_name": "gone.png"}),  # noqa: S108
        *({"id": 6, "file_name": "00000.png", "width": 480, "height": 720}, "no record"),
    ]
    return {
        "sound": text,
        "byte-order-mark": f"\ufeff{text}",
        "comma-after-last": text.replace("}]", "},]"),
        "not-a-number": text.replace("30.5", "NaN"),
        "double-key": text.replace('"iscrowd": 0', '"iscrowd": 1, "iscrowd": 0'),
        "two-documents": text + text,
        "python": repr(sound),
        "cut-off": text[: len(text) // 2],
        "list": json.dumps([box]),
        "labels": json.dumps({**sound, "annotations": [{**box, **odd} for odd in odd_labels]}),
        "images": json.dumps({**sound, "images": odd_images, "licence": None}),
        "classes": json.dumps({**sound, "categories": [{"id": 0, "name": "car"}, {"id": 1}, {"id": 2, "name": "car"}]}),
        "no-classes": json.dumps({**sound, "categories": {}, "annotations": {"first": {"id": 9, **box}}}),
    }


def make_older_adapter(adapter: Path, folder: Path) -> None:
    """Rename an adapter of the language model as Florence-2's first code has its modules."""
    folder.mkdir()
    older = {
        name.replace(".model.model.language_model.", ".model.language_model.model."): tensor
        for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
    }
    save_file(older, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    shutil.copy(adapter / "adapter_config.json", folder)


# A checkout at work


def environment(checkout: Path) -> dict[str, str]:
    """Give the variables that a checkout's commands run with; threads are left as they are."""
    kept = {name: value for name, value in os.environ.items() if name != "GROUNDED_SEG_PRESET"}
    # A thread that waits leaves the core to what else runs on this machine; results don't depend on it.
    own = {"OMP_WAIT_POLICY": "passive", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    return {**kept, **own, "PYTHONPATH": str(checkout)}


def serve() -> None:
    """Be the process of a checkout: fork for each line of stdin; say the new process's id, and then its exit code."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    found = importlib.util.find_spec("grounded_seg")
    print(found and found.origin, flush=True)
    # A command that looked through all that is in memory here would have to copy it.
    gc.freeze()
    for line in sys.stdin:
        process = multiprocessing.get_context("fork").Process(target=become, args=(json.loads(line),))
        process.start()
        print(process.pid, flush=True)
        process.join()
        print(process.exitcode, flush=True)


def become(request: Mapping[str, Any]) -> None:
    """Run the command in this process; it ends as the command does."""
    os.chdir(request["folder"])
    for descriptor, path in ((1, request["stdout"]), (2, request["log"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    if request["script"]:
        runpy.run_path(request["script"], run_name="__main__")
    else:
        sys.argv = ["grounded-seg", *request["arguments"]]
        runpy.run_module("grounded_seg.cli", run_name="__main__", alter_sys=True)


@dataclass
class Side:
    """A checkout whose commands run in the folder of one case after the other."""

    checkout: Path
    root: Path
    """Holds a folder for each case."""
    must_go_well: bool
    """An exit code that isn't the expected one ends the script; else it is a difference to be found."""
    folder: Path = Path()
    """Of the case that is being run."""
    codes: dict[str, int] = field(default_factory=dict)
    host: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """Start the process that forks, and check whose commands it will run."""
        # -P: the folder of this script is no place for modules.
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--serve"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        host = subprocess.Popen(command, env=environment(self.checkout), **pipes)
        origin = host.stdout.readline().strip() if host.stdout else ""
        if not Path(origin).is_relative_to(self.checkout):
            raise UnexpectedError(f"{self.checkout} has no package of its own: grounded_seg would be {origin}")
        return host

    def stop(self) -> None:
        """End the process that forks."""
        if self.host and self.host.stdin:
            self.host.stdin.close()
            self.host.wait()

    def run(self, *arguments: str, expect: int = 0, stdout: str = "") -> None:
        """Run a command to its end.

        Args:
            arguments: Of `grounded-seg`.
            expect: Its exit code.
            stdout: The file that what it prints is compared as; "" not to compare it.
        """
        self._ask(arguments, stdout)
        self._end(arguments, expect)

    def run_script(self, path: str) -> None:
        """Run a script of Python to its end."""
        self._ask((), "", script=path)
        self._end((path,), 0)

    def kill(self, *arguments: str, journal: str) -> None:
        """Run a command and kill it when it has written some lines of its journal."""
        process_id = self._ask(arguments, "")
        path = self.folder / journal
        while Path(f"/proc/{process_id}").exists() and n_lines(path) < N_LINES_AT_KILL:
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)
        self._end(arguments, -signal.SIGKILL)

    def _ask(self, arguments: Sequence[str], stdout: str, script: str = "") -> int:
        """Have a command started; gives the id of its process."""
        self.host = self.host or self.start()
        log = self.root / f"{self.folder.name}.log"
        with log.open("a") as file:
            file.write(f"\n$ {' '.join(arguments) or script}\n")
        request = {
            "folder": str(self.folder),
            "arguments": arguments,
            "script": script,
            "stdout": stdout or str(log),
            "log": str(log),
        }
        assert self.host.stdin
        self.host.stdin.write(json.dumps(request) + "\n")
        self.host.stdin.flush()
        return self._answer()

    def _end(self, arguments: Sequence[str], expect: int) -> None:
        """Wait for the end of a command and keep its exit code."""
        code, command = self._answer(), f"{len(self.codes) + 1} {' '.join(arguments)}"
        self.codes[command] = code
        if code != expect and self.must_go_well:
            log = f"{self.root / self.folder.name}.log"
            raise UnexpectedError(f"{self.folder.name}: {command}: exit code {code} instead of {expect}; see {log}")

    def _answer(self) -> int:
        assert self.host
        assert self.host.stdout
        return int(self.host.stdout.readline())


def n_lines(path: Path) -> int:
    """Count the whole lines of a file; 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


# The cases


def run_folder(side: Side) -> None:
    """A folder of images of all forms, one by one."""
    side.run("run", *ASKED, f"{INPUTS}/photos", "-o", "out", *ALL_PICTURES, *DEMO, expect=1)


def run_batches(side: Side) -> None:
    """The same folder, four images at once."""
    side.run("run", *ASKED, f"{INPUTS}/photos", "-o", "out", *ALL_PICTURES, "--batch-size", "4", *DEMO, expect=1)


def cut_off(side: Side) -> None:
    """A run that goes on where its journal is cut off, in the middle of a line and of a batch."""
    shutil.copytree(side.root / "batches" / "out", side.folder / "out")
    journal = side.folder / "out" / "results.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:6]) + lines[6][: len(lines[6]) // 2])
    (side.folder / "out" / "annotations.json").unlink()
    command = ("run", *ASKED, f"{INPUTS}/photos", "-o", "out", *ALL_PICTURES, "--batch-size", "4", *DEMO)
    side.run(*command, "--resume", expect=1)


def killed(side: Side) -> None:
    """A run that is killed, and goes on."""
    command = ("run", *ASKED, f"{INPUTS}/photos", "-o", "out", *ALL_PICTURES, *DEMO)
    side.kill(*command, journal="out/results.jsonl")
    if (side.folder / "out" / "annotations.json").exists():
        raise UnexpectedError("the run was killed too late, after its end")
    side.run(*command, "--resume", expect=1)


def tiled(side: Side) -> None:
    """Images in tiles."""
    command = ("run", *ASKED, f"@{INPUTS}/few.txt", "-o", "out", "--tile", "320", "--overlap", "0.25", *DEMO)
    side.run(*command, "--batch-size", "2", "--json", stdout="stdout.jsonl")


def boxes_only(side: Side) -> None:
    """No masks; other ways to ask, to look for duplicates and to refuse images."""
    command = ("run", "car; ball", f"{INPUTS}/photos", "--boxes-only", "--save", "crops", "--json", *DEMO)
    ways = ("--task", "open-vocabulary", "--nms", "agnostic", "--iou-threshold", "0.4", "--max-detections", "3")
    side.run(*command, *ways, "--max-pixels", "350000", "-o", "out", stdout="stdout.jsonl", expect=1)
    few = ("run", "car; ball", f"@{INPUTS}/few.txt", "--boxes-only", "--score-threshold", "0", "--nms", "none", *DEMO)
    side.run(*few, "--task", "referring", "--save", "none", "-o", "referring")
    side.run(*few, "--adapter", "none", "--box-containment-threshold", "0.8", "-o", "base")


def cleaned_masks(side: Side) -> None:
    """Three masks a box, mended, sorted out and marked; an answer by beams."""
    masks = ("--multimask", "--clean", "--min-area", "400", "--outside-share", "0.02")
    alike = ("--mask-iou-threshold", "0.8", "--containment-threshold", "0.7", "--nms", "none", "--beams", "2")
    side.run("run", *ASKED, f"@{INPUTS}/few.txt", "-o", "out", *masks, *alike, *ALL_PICTURES, *DEMO)
    side.run("run", *ASKED, f"@{INPUTS}/few.txt", "-o", "plain", "--multimask", "--batch-size", "3", *DEMO)


def classes_and_list(side: Side) -> None:
    """Prompts with classes, and a list of paths of which one isn't there."""
    command = ("run", f"@{INPUTS}/classes.yaml", f"@{INPUTS}/list.txt", "-o", "out", "--json", *DEMO)
    side.run(*command, "--score-threshold", "0.1", "--no-recursive", stdout="stdout.jsonl", expect=1)


def python_api(side: Side) -> None:
    """What the README shows of Python."""
    side.run_script(f"{INPUTS}/api.py")


def ask(side: Side) -> None:
    """Questions in Florence-2's tasks."""
    image = f"{INPUTS}/photos/scene-1.jpg"
    questions = (
        *(("CAPTION",), ("CAPTION_TO_PHRASE_GROUNDING", "red car and ball"), ("OPEN_VOCABULARY_DETECTION", "tree")),
        *(("REFERRING_EXPRESSION_SEGMENTATION", "ball"), ("REGION_TO_CATEGORY", "-5,60,320,400")),
    )
    for question in questions:
        name = question[0].lower()
        side.run("ask", *question, image, "--json", "-o", name, *DEMO, stdout=f"{name}.json")
    beams = ("--beams", "3", "--max-new-tokens", "40", "--adapter", "none")
    side.run("ask", "od", f"{INPUTS}/photos/turned.jpg", "--json", *beams, *DEMO, stdout="beams.json")


FORMS = (
    *("coco rle", "coco polygon", "coco both", "coco none", "yolo polygon", "yolo none", "voc none", "masks rle"),
    *("labelme rle", "labelme polygon", "labelme none", "labelstudio rle", "labelstudio polygon", "labelstudio none"),
    *("cvat rle", "cvat polygon", "cvat none", "fiftyone rle", "fiftyone polygon", "fiftyone none"),
)
"""Formats of `export`, each with a form of masks."""


def export_all(side: Side, source: str, *options: str) -> None:
    """Export in all formats and forms, then each format in splits with its images."""
    for form in FORMS:
        to, seg = form.split()
        side.run("export", source, "--to", to, "--seg", seg, "-o", f"{to}-{seg}")
        if seg == "polygon":
            side.run("export", source, "--to", to, "--seg", seg, "--tolerance", "1.5", "-o", f"{to}-simpler")
    for to in dict.fromkeys(form.split()[0] for form in FORMS):
        split = ("--split", "60/20/20", "--seed", "3", "--copy-images", *options)
        side.run("export", source, "--to", to, "-o", f"{to}-split", *split)


def export_run(side: Side) -> None:
    """Exports of a run, whose skipped images stay away."""
    export_all(side, "../folder/out")
    side.run("export", "../folder/out", "--to", "coco", "-o", "some", "--min-score", "0.6", "--classes", "car;tree")
    side.run("export", "../folder/out", "--to", "yolo", "-o", "linked", "--link-images", "--split", "80/20")


def export_truth(side: Side) -> None:
    """Exports of a COCO file of exact masks."""
    export_all(side, f"{INPUTS}/scenes/instances.json", "--images", f"{INPUTS}/scenes/images")


def export_labels(side: Side) -> None:
    """Exports of a COCO file with crowds, polygons, boxes, scores, attributes and sections of its own."""
    source = f"{INPUTS}/labels/labels.json"
    export_all(side, source, "--images", f"{INPUTS}/labels/images")
    side.run("export", source, "--to", "coco", "-o", "some", "--min-score", "0.5", "--classes", "car;Bäume")


TRUTH = (f"{INPUTS}/scenes/instances.json", "--images", f"{INPUTS}/scenes/images")


def evaluation(side: Side) -> None:
    """Figures of both stages, and the same from predictions that were cut off; how these are kept may change."""
    side.run("eval", *TRUTH, "--json", "whole/eval.json", "-o", "kept-by-eval", *DEMO)
    shutil.copytree(side.folder / "kept-by-eval", side.folder / "cut-off-by-eval")
    [journal] = (side.folder / "cut-off-by-eval").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:9]) + lines[9][:100])
    side.run("eval", *TRUTH, "--json", "resumed/eval.json", "-o", "cut-off-by-eval", "--resume", *DEMO)


def evaluation_of_some(side: Side) -> None:
    """Figures where each image is asked some of its absent classes; intervals; prompts with classes; boxes only."""
    side.run("eval", *TRUTH, "--json", "absent/eval.json", "--absent", "2", "--intervals", "50", *DEMO)
    classes = ("--prompts", f"{INPUTS}/classes.yaml", "--batch-size", "3", "--boxes-only", "--score-threshold", "0.3")
    side.run("eval", *TRUTH, "--json", "classes/eval.json", *classes, *DEMO)


def evaluation_of_files(side: Side) -> None:
    """Figures of what a run has found, from each of its files, and of a result list."""
    found = side.root / "classes-and-list" / "out" / "annotations.json"
    numbers = {one["file_name"]: one["id"] for one in json.loads((side.folder / TRUTH[0]).read_text())["images"]}
    document = json.loads(found.read_text())
    names = {one["id"]: one["file_name"].rpartition("/")[2] for one in document["images"]}
    kept = ("category_id", "bbox", "score", "segmentation")
    results = [
        {"image_id": numbers[names[one["image_id"]]], **{key: one[key] for key in kept}}
        for one in document["annotations"]
        if names[one["image_id"]] in numbers
    ]
    (side.folder / "results.json").write_text(json.dumps(results))
    for number, path in enumerate((str(found.parent / "results.jsonl"), str(found), "results.json")):
        predictions = os.path.relpath(path, side.folder) if number < 2 else path
        command = ("eval", TRUTH[0], "--predictions", predictions, "--json", f"{number}/eval.json")
        side.run(*command, "--intervals", "20", "--score-threshold", "0.4")


def evaluation_plots(side: Side) -> None:
    """The pictures of an evaluation, and its page of the worst images."""
    found = "../classes-and-list/out/annotations.json"
    side.run("eval", *TRUTH, "--predictions", found, "--plots", "plots", "--json", "eval.json")


def validation(side: Side) -> None:
    """Repaired copies of broken files."""
    (side.folder / "fixed").mkdir()
    hopeless = {"cut-off", "list"}
    for path in sorted((side.folder / INPUTS / "broken").iterdir()):
        source = f"{INPUTS}/broken/{path.name}"
        side.run("validate", source, expect=0 if path.stem == "sound" else 3)
        side.run("validate", source, "--fix", f"fixed/{path.name}", expect=3 if path.stem in hopeless else 0)
    images = ("--images", f"{INPUTS}/scenes/images")
    side.run("validate", f"{INPUTS}/broken/images.json", "--fix", "fixed/images-there.json", *images, expect=3)
    side.run("validate", f"{INPUTS}/labels/labels.json", "--images", f"{INPUTS}/labels/images", expect=3)


def merged_runs(side: Side) -> None:
    """Runs of two folders as one, exported and measured."""
    side.run("run", *ASKED, f"{INPUTS}/more/images", "-o", "more", "--batch-size", "3", *DEMO)
    side.run("merge-runs", "../folder/out", "more", "-o", "merged")
    side.run("export", "merged", "--to", "coco", "-o", "coco", "--copy-images")
    command = ("eval", f"{INPUTS}/more/instances.json", "--predictions", "merged/annotations.json")
    side.run(*command, "--json", "eval.json")


def models(side: Side) -> None:
    """An adapter merged into its base, one of the older layout rewritten, and both at work."""
    side.run("models", "merge", f"{INPUTS}/demo/detector", f"{INPUTS}/demo/adapter", "merged")
    side.run("models", "convert", f"{INPUTS}/older-adapter", "native")
    image = f"{INPUTS}/photos/scene-1.jpg"
    for name, weights in (
        ("merged", ("--detector", "merged")),
        ("native", ("--adapter", "native")),
        ("older", ("--adapter", f"{INPUTS}/older-adapter")),
        ("segmenter", ("--segmenter", f"{INPUTS}/demo/segmenter")),
    ):
        side.run("run", "car; ball", image, "-o", f"by-{name}", *weights, *DEMO)


def refusals(side: Side) -> None:
    """The exit codes of what is refused, and the files that stay."""
    image, used = f"{INPUTS}/photos/a.jpg", ("run", "car", f"{INPUTS}/photos/a.jpg", "-o", "used", *DEMO)
    (side.folder / "report.json").write_text("{}")
    commands: Iterable[tuple[int, tuple[str, ...]]] = (
        *((0, used), (2, used), (0, (*used, "--resume")), (2, (*used, "--resume", "--nms", "none"))),
        (2, (*used, "--resume", "--overwrite")),
        (0, ("run", "ball", image, "-o", "used", "--overwrite", *DEMO)),
        (2, ("run", " ; ", image, "-o", "no", *DEMO)),
        (3, ("run", "car", f"{INPUTS}/missing.png", "-o", "no", *DEMO)),
        (3, ("run", "car", f"{INPUTS}/photos/broken.jpg", "-o", "no", *DEMO)),
        (3, ("run", "car", f"{INPUTS}/photos", "-o", "stopped", "--on-error", "stop", "--boxes-only", *DEMO)),
        (2, ("run", "car", image, "-o", "no", "--save", "none", "--save", "masks", *DEMO)),
        (2, ("run", "car", image, "-o", "no", "--preset", "none")),
        (4, ("run", "car", image, "-o", "no", *DEMO, "--adapter", "nowhere")),
        (5, ("run", "car", image, "-o", "no", *DEMO, "--device", "cuda:99")),
        (2, ("ask", "SING", image, *DEMO)),
        (2, ("ask", "REGION_TO_OCR", "1,2,3", image, *DEMO)),
        (3, ("ask", "OD", f"{INPUTS}/photos/words.png", *DEMO)),
        (2, ("export", "used", "--to", "coco", "-o", "used")),
        (2, ("export", "used", "--to", "voc", "--seg", "rle", "-o", "no")),
        (2, ("export", "used", "--to", "coco", "--classes", "cow", "-o", "no")),
        (3, ("export", f"{INPUTS}/broken/cut-off.json", "--to", "coco", "-o", "no")),
        *((2, ("merge-runs", "used", "-o", "no")), (3, ("merge-runs", "used", "nowhere", "-o", "no"))),
        *((2, ("eval", TRUTH[0])), (3, ("eval", TRUTH[0], "--images", ".", *DEMO))),
        (3, ("eval", f"{INPUTS}/broken/labels.json", "--predictions", "used/annotations.json")),
        (3, ("compare", "report.json", "report.json")),
        (0, ("compare", "../eval/whole/eval.json", "../eval/resumed/eval.json", "--intervals", "20")),
        (2, ("models", "convert", f"{INPUTS}/demo/adapter", "no")),
        *(
            (3, ("train", f"{INPUTS}/more/images", "-o", "no", *DEMO)),
            (2, ("train", "no", "-o", "no", "--epochs", "0")),
        ),
    )
    for code, command in commands:
        side.run(*command, expect=code)


def training(side: Side) -> None:
    """A few steps of training: the adapter, the losses and the report."""
    data, few = f"{INPUTS}/scenes/instances.json", ("--split", "60/20/20", "--seed", "5", "--batch-size", "4")
    steps = ("--max-steps", "6", "--save-steps", "4", "--eval-steps", "2", "--lr", "1e-3", "--dropout", "0.1")
    side.run("train", data, "-o", "tuned", *few, *steps, *DEMO)
    side.run("train", data, "-o", "dry", *few, "--prompt-form", "od", "--image-size", "224", "--dry-run", *DEMO)
    full = ("--method", "full", "--parts", "projector", "--max-steps", "2", "--no-report", "--no-augment")
    side.run("train", data, "-o", "full", *few, *full, "--eval-images", "1", *DEMO)
    side.run("run", "car", f"@{INPUTS}/few.txt", "-o", "by-tuned", "--adapter", "tuned", *DEMO)


@dataclass(frozen=True)
class Case:
    """Commands that run in a folder of their own, and whose results are compared."""

    name: str
    work: Callable[[Side], None]
    n_files: int
    """At least so many files have to be compared."""
    needs: tuple[str, ...] = ()
    """Cases whose results it takes up."""
    as_well: tuple[str, str] | None = None
    """Two folders of one checkout's results that have to hold the very same files, but for run.json."""


CASES = (
    Case("folder", run_folder, 40),
    Case("batches", run_batches, 40),
    Case("cut-off", cut_off, 40, ("batches",), as_well=("batches/out", "cut-off/out")),
    Case("killed", killed, 40, ("folder",), as_well=("folder/out", "killed/out")),
    Case("tiled", tiled, 8),
    Case("boxes-only", boxes_only, 10),
    Case("cleaned-masks", cleaned_masks, 10),
    Case("classes-and-list", classes_and_list, 10),
    Case("python", python_api, 4),
    Case("ask", ask, 14),
    Case("export-run", export_run, 100, ("folder",)),
    Case("export-truth", export_truth, 100),
    Case("export-labels", export_labels, 100),
    Case("eval", evaluation, 3, as_well=("eval/whole", "eval/resumed")),
    Case("eval-some", evaluation_of_some, 3),
    Case("eval-files", evaluation_of_files, 4, ("classes-and-list",)),
    Case("eval-plots", evaluation_plots, 6, ("classes-and-list",)),
    Case("validate", validation, 8),
    Case("merge-runs", merged_runs, 10, ("folder",)),
    Case("models", models, 20),
    Case("refusals", refusals, 5, ("eval",)),
    Case("training", training, 12),
)


# What is compared


def files_of(folder: Path) -> dict[str, Path]:
    """List all files and links by their relative path, the exit codes first."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    kept = {inside.as_posix(): path for inside, path in paths.items() if not UNCOMPARED_FOLDERS & set(inside.parts)}
    return dict(sorted(kept.items(), key=lambda item: (item[0] != CODES_FILE, item[0])))


def compare_folders(left: Path, right: Path, leave_out: frozenset[str] = frozenset()) -> tuple[int, str]:
    """Compare all files of two folders.

    Args:
        left: One.
        right: The other.
        leave_out: Names of files that aren't compared.

    Returns:
        How many files were compared, and what is different: "" for nothing.
    """
    ours, theirs = files_of(left), files_of(right)
    names = [name for name in dict.fromkeys((*ours, *theirs)) if Path(name).name not in leave_out]
    in_both = [name for name in names if name in ours and name in theirs]
    found = {name: f"only {'before' if name in ours else 'after'}" for name in names if name not in in_both}
    found |= {name: difference for name in in_both if (difference := file_difference(ours[name], theirs[name]))}
    first = next((name for name in names if name in found), None)
    return len(in_both), f"{len(found)} files, first {first}: {found[first]}" if first else ""


def file_difference(left: Path, right: Path) -> str:
    """Say where two files differ; "" if they don't."""
    if left.is_symlink() or right.is_symlink():
        targets = [str(path.readlink()) if path.is_symlink() else "a file" for path in (left, right)]
        return "" if targets[0] == targets[1] else f"{targets[0]} | {targets[1]}"
    first, second = (OWN_VERSION.sub(rb'\1""', path.read_bytes()) for path in (left, right))
    if first == second:
        return ""
    if left.suffix not in (".json", ".jsonl"):
        return f"{len(first)} bytes {sha256(first)} | {len(second)} bytes {sha256(second)}"
    try:
        sides = [without(document_of(content, left.suffix), left.name) for content in (first, second)]
    except ValueError as error:
        return f"no JSON ({error})"
    difference = value_difference(*sides)
    return difference if difference or left.name in DROPPED else "the same values, written in another way"


def document_of(content: bytes, suffix: str) -> Any:
    """Read JSON, or a list of the lines of JSON."""
    return json.loads(content) if suffix == ".json" else [json.loads(line) for line in content.splitlines()]


def without(value: Any, name: str) -> Any:
    """Copy what a file of that name says without the keys that aren't compared."""
    dropped = DROPPED.get(name, frozenset())
    if isinstance(value, dict):
        return {key: without(one, name) for key, one in value.items() if key not in dropped}
    return [without(one, name) for one in value] if isinstance(value, list) else value


def value_difference(left: Any, right: Any, place: str = "$") -> str:
    """Find the first place where two values of JSON differ; "" if there is none."""
    if isinstance(left, dict) and isinstance(right, dict):
        parts: Iterator[tuple[str, Any]] = ((f".{key}", key) for key in dict.fromkeys((*left, *right)))
    elif isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            return f"{place}: {len(left)} | {len(right)} items"
        parts = ((f"[{number}]", number) for number in range(len(left)))
    else:
        # 1, 1.0 and true are equal in Python.
        return "" if json.dumps(left) == json.dumps(right) else f"{place}: {shown(left)} | {shown(right)}"
    for part, key in parts:
        if isinstance(left, dict) and not (key in left and key in right):
            return f"{place}{part} is only {'before' if key in left else 'after'}"
        difference = value_difference(left[key], right[key], place + part)
        if difference:
            return difference
    return ""


def shown(value: Any) -> str:
    """Write a value for the table."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def sha256(content: bytes) -> str:
    """Give the first digits of a hash, enough to tell files apart."""
    return hashlib.sha256(content).hexdigest()[:12]


# Putting it together


def work_on(case: Case, side: Side) -> str:
    """Run a case; gives what went wrong with the case itself, or ""."""
    side.folder, side.codes = side.root / case.name, {}
    shutil.rmtree(side.folder, ignore_errors=True)
    (side.root / f"{case.name}.log").unlink(missing_ok=True)
    side.folder.mkdir(parents=True)
    problem = ""
    try:
        case.work(side)
    except (OSError, LookupError, ValueError, UnexpectedError) as error:
        if side.must_go_well:
            raise
        # What an earlier command should have written isn't there, or isn't what it should be.
        problem = f"{type(error).__name__}: {error}"
    # Written last: a case of BEFORE that was cut off has none, and is run again.
    (side.folder / CODES_FILE).write_text(json.dumps(side.codes, indent=1))
    return problem


def rows_of(case: Case, before: Side, after: Side, problem: str) -> Iterator[tuple[str, int, str]]:
    """Compare what a case wrote: its name, how many files were compared, and the first difference."""
    n_files, difference = compare_folders(before.root / case.name, after.root / case.name)
    if not difference and n_files < case.n_files:
        difference = f"only {n_files} files compared, there should be {case.n_files}"
    yield case.name, n_files, "; ".join(filter(None, (difference, problem)))
    for side in (before, after) if case.as_well else ():
        left, right = (side.root / name for name in case.as_well or ())
        n_files, difference = compare_folders(left, right, leave_out=frozenset({"run.json"}))
        name = f"  as uncut, {side.root.name}"
        yield name, n_files, difference if n_files else "nothing to compare"


def chosen_cases(only: Sequence[str], with_training: bool) -> list[Case]:
    """Take the cases asked for and those whose results they need, in their order."""
    wanted = set(only) or {case.name for case in CASES if case.name != "training"}
    wanted |= {"training"} if with_training else set()
    for case in reversed(CASES):
        wanted |= set(case.needs) if case.name in wanted else set()
    return [case for case in CASES if case.name in wanted]


def stamp_of(before: Path) -> dict[str, str]:
    """Say what the results of BEFORE depend on."""
    folders = [before / name for name in ("grounded_seg", "checkpoints/demo", "examples", "benchmarks")]
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    files = hashlib.sha256()
    for path in paths:
        files.update(f"{path.relative_to(before)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    packages = sorted(
        f"{one.name} {one.version}" for one in importlib.metadata.distributions() if one.name != "grounded-seg"
    )
    return {
        "before": files.hexdigest(),
        "script": sha256(Path(__file__).read_bytes()),
        "installed": sha256("\n".join((sys.version, *packages)).encode()),
        "threads": f"{os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS')}",
    }


def prepare(before: Path, folder: Path) -> None:
    """Have the inputs in the folder; what is kept there of another BEFORE is taken away."""
    stamp, path = stamp_of(before), folder / STAMP_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not path.exists():
        raise UnexpectedError(f"{folder} holds other things; name a new folder with --keep")
    if path.exists() and json.loads(path.read_text()) == stamp and (folder / "inputs").exists():
        return
    for name in ("inputs.part", "inputs", "before", "after"):
        shutil.rmtree(folder / name, ignore_errors=True)
    path.write_text(json.dumps(stamp))
    make_inputs(before, folder / "inputs.part")
    (folder / "inputs.part").rename(folder / "inputs")


def compare_checkouts(checkouts: Sequence[Path], folder: Path, cases: Sequence[Case]) -> bool:
    """Run the cases with both checkouts and print a line for each; gives whether all is the same."""
    prepare(checkouts[0], folder)
    shutil.rmtree(folder / "after", ignore_errors=True)
    before = Side(checkouts[0], folder / "before", must_go_well=True)
    after = Side(checkouts[1], folder / "after", must_go_well=False)
    after.host = after.start()
    all_same = True
    print(f"{'case':24}{'files':>6}{'seconds':>9}  result")
    try:
        for case in cases:
            if not (before.root / case.name / CODES_FILE).exists():
                work_on(case, before)
            started = time.perf_counter()
            problem = work_on(case, after)
            seconds = time.perf_counter() - started
            for name, n_files, difference in rows_of(case, before, after, problem):
                all_same = all_same and not difference
                result = f"different: {difference}" if difference else "same"
                print(f"{name:24}{n_files:6}{seconds:9.1f}  {result}", flush=True)
    finally:
        before.stop()
        after.stop()
    return all_same


def main() -> int:
    """Compare two checkouts; 1 if anything differs, or the comparison can't be made."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("before", type=Path, metavar="BEFORE", help="checkout that shows what is right")
    options.add_argument("after", type=Path, metavar="AFTER", nargs="?", default=Path(__file__).resolve().parents[1])
    options.add_argument("--keep", type=Path, metavar="FOLDER", help="keep inputs and results there")
    options.add_argument("--only", nargs="+", default=[], metavar="CASE", choices=[case.name for case in CASES])
    options.add_argument("--training", action="store_true", help="tune the detector for a few steps, too")
    chosen = options.parse_args()
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same-bytes-")))
        checkouts = [path.resolve() for path in (chosen.before, chosen.after)]
        try:
            is_same = compare_checkouts(checkouts, folder.resolve(), chosen_cases(chosen.only, chosen.training))
        except UnexpectedError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    verdict = "all the same" if is_same else "not the same"
    print(f"{verdict}, after {time.perf_counter() - started:.0f} s")
    return int(not is_same)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(main())
