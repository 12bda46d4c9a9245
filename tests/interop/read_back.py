"""Read every export back with the readers of label tools, and compare with what was written.

    python tests/interop/read_back.py [--tools supervision labelme ...] [--output interop.json]

Each tool has an environment of its own in `.cache/interop/TOOL`, made when it is missing, because they want other
releases of OpenCV and numpy than this package and each other. Files are the only interface. A reader script writes what
it read in the form of `reader_output.py`. Ends with exit code 1 if a label is missing or of another class, a box is off
by more than a pixel, a mask by more than the format allows, or a score or an attribute is another one. A tool that
can't be installed is skipped, and the reason printed.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from compare_labels import Check, Outcome, compare, compare_joined

from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import ExportSettings, LabelFormat, MaskForm, Pictures
from grounded_seg.geometry.masks import (
    area_px,
    coco_from_run_length,
    run_length_from_coco,
    run_length_from_mask,
    tight_box_xyxy,
)
from grounded_seg.geometry.polygons import edge_polygons_from_mask
from grounded_seg.scenes.render import Split, render_scene

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "interop"
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
CASES = ROOT.parent / "shared" / "cases" / "coco"
ROBOFLOW_LIKE = ("01_ids_from_0", "10_cat_id_0", "12_roboflow_root")
N_SCENES = 8

TOOLS = {
    "supervision": ["supervision"],
    "label-studio-sdk": ["label-studio-sdk"],
    "labelme": ["labelme"],
    "datumaro": ["datumaro"],
    "torchvision": [],
    "ultralytics": ["ultralytics", "faster-coco-eval"],
    "fiftyone": ["fiftyone", "pycocotools"],
    "x-anylabeling": ["x-anylabeling-cvhub", "json-repair", "jsonlines", "attrs"],
    "x-anylabeling-server": [
        *("x-anylabeling-cvhub>=4.2", "PyQt6<6.10", "PyQt6-Qt6<6.10", "PyQt6-sip", "qimage2ndarray", "natsort"),
        *("json-repair", "jsonlines", "termcolor", "importlib-metadata", "zipp", "markdown", "darkdetect", "requests"),
        *("openai", "sniffio", "distro", "jiter", "lazy-importer"),
    ],
    "cvat-sdk": ["cvat-sdk>=2.41", "attrs"],
}
"""The packages that each needs, none for what this package brings along."""
SERVED = {
    "label-studio-sdk": "ask_label_studio.py",
    "x-anylabeling-server": "ask_x_anylabeling.py",
    "cvat-sdk": "ask_cvat.py",
}
"""Tools that ask a server, and the scripts that do; see `ask_server.py`."""
BESIDE = {"ultralytics", "x-anylabeling", "x-anylabeling-server"}
"""Tools of which only what reads COCO is wanted: they are installed without what else they depend on, which would be
gigabytes, and find torch, OpenCV and numpy among this package's own."""
SEES_OURS = {*BESIDE, "cvat-sdk"}
"""Tools that find this package's own packages."""
READ_ONLY_RAW = {"x-anylabeling", "x-anylabeling-server", "cvat-sdk"}
"""Tools that only `try_quirks.py` and `ask_server.py` need."""
INSTALL_LIMIT_S = 480


CHECKS = (
    Check("supervision", LabelFormat.COCO, MaskForm.RLE, 1.0),
    Check("supervision", LabelFormat.COCO, MaskForm.POLYGON, edge_off_px=1),
    Check("supervision", LabelFormat.YOLO, MaskForm.POLYGON, 0.98, parts_may_be_joined=True),
    Check("supervision", LabelFormat.YOLO, MaskForm.NONE),
    Check("supervision", LabelFormat.VOC, MaskForm.NONE),
    Check("labelme", LabelFormat.LABELME, MaskForm.RLE, 1.0, has_scores=True, has_attributes=True),
    Check("labelme", LabelFormat.LABELME, MaskForm.POLYGON, 0.98, has_scores=True, has_attributes=True),
    Check("label-studio-sdk", LabelFormat.LABELSTUDIO, MaskForm.RLE, 1.0, has_scores=True),
    Check("label-studio-sdk", LabelFormat.LABELSTUDIO, MaskForm.POLYGON, 0.98, has_scores=True, parts_are_labels=True),
    Check("label-studio-sdk", LabelFormat.LABELSTUDIO, MaskForm.NONE, has_scores=True),
    Check("datumaro", LabelFormat.COCO, MaskForm.RLE, 1.0, has_scores=True, has_attributes=True),
    Check("datumaro", LabelFormat.COCO, MaskForm.POLYGON, 0.98, has_scores=True, has_attributes=True),
    Check("datumaro", LabelFormat.CVAT, MaskForm.RLE, 1.0, has_scores=True, has_attributes=True),
    Check("datumaro", LabelFormat.CVAT, MaskForm.POLYGON, 0.98, has_scores=True, has_attributes=True),
    Check("datumaro", LabelFormat.CVAT, MaskForm.NONE, has_scores=True, has_attributes=True),
    Check("torchvision", LabelFormat.COCO, MaskForm.RLE, 1.0, has_scores=True, has_attributes=True),
    Check("torchvision", LabelFormat.COCO, MaskForm.POLYGON, 1.0, has_scores=True, has_attributes=True),
    Check("torchvision", LabelFormat.COCO, MaskForm.NONE, has_scores=True, has_attributes=True),
    Check("ultralytics", LabelFormat.COCO, MaskForm.RLE, drops_crowds=True, loses_thin_parts=True),
    Check("ultralytics", LabelFormat.COCO, MaskForm.POLYGON, drops_crowds=True),
    Check("ultralytics", LabelFormat.COCO, MaskForm.NONE, drops_crowds=True),
    Check("ultralytics", LabelFormat.YOLO, MaskForm.POLYGON),
    Check("ultralytics", LabelFormat.YOLO, MaskForm.NONE),
    Check("fiftyone", LabelFormat.FIFTYONE, MaskForm.RLE, 1.0, has_scores=True),
    Check("fiftyone", LabelFormat.FIFTYONE, MaskForm.POLYGON, 0.98, has_scores=True),
    Check("fiftyone", LabelFormat.FIFTYONE, MaskForm.NONE, has_scores=True),
)


def main() -> int:
    """Run the checks whose tools are asked for, and print a table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    tools = [tool for tool in TOOLS if tool not in READ_ONLY_RAW]
    options.add_argument("--tools", nargs="+", default=tools, choices=tools)
    options.add_argument("--data", nargs="+", help="only these data sets: scenes, photos, roboflow, or names of cases")
    options.add_argument("--output", type=Path, help="write the outcomes as JSON")
    chosen = options.parse_args()
    outcomes = []
    for tool in chosen.tools:
        try:
            python = environment(tool)
        except subprocess.CalledProcessError as error:
            print(f"{tool} skipped, it can't be installed: {error.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        except subprocess.TimeoutExpired:
            print(f"{tool} skipped, it wasn't installed within {INSTALL_LIMIT_S} s", flush=True)
            continue
        for data, source, images in sources():
            for check in CHECKS:
                if data == "photos" and check.loses_thin_parts:
                    continue
                if check.tool == tool and data in (chosen.data or [data]):
                    outcomes.append(outcome := carry_out(check, python, data, source, images))
                    print(line(outcome), flush=True)
    if chosen.output:
        chosen.output.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    return int(any(outcome.problems for outcome in outcomes))


def environment(tool: str) -> Path:
    """Make a tool's environment where it is missing; the stamp is written last."""
    if not TOOLS[tool]:
        return Path(sys.executable)
    folder = CACHE / tool
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--only-binary",
            ":all:",
            *(["--no-deps"] if tool in BESIDE else []),
            *TOOLS[tool],
        ]
        if tool in SEES_OURS:
            [packages] = folder.glob("lib/python*/site-packages")
            (packages / "beside.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
        (folder / "complete").touch()
    return python


def sources() -> Iterator[tuple[str, Path, Path]]:
    """Give the data sets: a name, the COCO file, and the folder of the images."""
    yield "scenes", write_scenes(CACHE / "scenes"), CACHE / "scenes"
    if PHOTOS.exists():
        yield "photos", PHOTOS / "instances.json", PHOTOS / "images"
    yield "roboflow", write_like_roboflow(CACHE / "scenes"), CACHE / "scenes"
    for name in ROBOFLOW_LIKE if CASES.exists() else ():
        folder = CACHE / "cases"
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (100, 100)).save(folder / "a.jpg")
        yield name[:2], CASES / f"{name}.json", folder


def write_like_roboflow(scenes: Path) -> Path:
    """Write the scenes as Roboflow would: ids from 0, a parent class first, polygons, the area of the box, no score."""
    document = json.loads((scenes / "annotations.json").read_text())
    for image in document["images"]:
        image["id"] -= 1
    for category in document["categories"]:
        category["supercategory"] = "things"
    document["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    for number, one in enumerate(document["annotations"]):
        del one["score"], one["attributes"]
        rings = edge_polygons_from_mask(run_length_from_coco(one["segmentation"]))
        one.update(id=number, image_id=one["image_id"] - 1, area=one["bbox"][2] * one["bbox"][3])
        one["segmentation"] = [np.asarray(ring).ravel().tolist() for ring in rings]
    path = scenes / "like_roboflow.json"
    path.write_text(json.dumps(document))
    return path


def write_scenes(folder: Path) -> Path:
    """Write rendered scenes, with names that meet once their folders are dropped."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for index in range(N_SCENES):
        scene = render_scene(Split.TEST, index, short_side=240)
        name = f"{'ab'[index % 2]}/scène {index // 2}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(scene.pixels).save(folder / name)
        size = {"width": scene.size.width, "height": scene.size.height}
        images.append({"id": index + 1, "file_name": name, **size})
        for shown in scene.objects:
            mask = run_length_from_mask(shown.mask)
            x0, y0, x1, y1 = tight_box_xyxy(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": categories.setdefault(f"{shown.kind} 車", len(categories) + 1),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": area_px(mask),
                    "segmentation": coco_from_run_length(mask),
                    "iscrowd": 0,
                    "score": round(1 / (len(annotations) + 1.5), 6),
                    "attributes": {"label": shown.colour, "detector_score": 0.25, "leaves_box": index % 2 == 1},
                }
            )
    named = [{"id": number, "name": name} for name, number in categories.items()]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "categories": named, "annotations": annotations}))
    return path


def carry_out(check: Check, python: Path, data: str, source: Path, images: Path) -> Outcome:
    """Export, let the tool read, and compare."""
    outcome = Outcome(check.tool, str(check.format), str(check.form), data)
    folder = CACHE / "exports" / f"{check.tool}-{check.format}-{check.form}-{data}"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    settings = ExportSettings(source, folder, check.format, check.form, images=images, pictures=Pictures.COPY)
    losses = export_labels(settings).losses
    script = HERE / f"read_{check.tool.replace('-', '_')}.py"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE)}
    reading = subprocess.run(
        [python, script, check.format, check.form, folder, folder / "read.json"],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if reading.returncode:
        outcome.problems.append(f"the reader failed: {reading.stderr.strip().splitlines()[-1]}")
        return outcome
    compare(check, source, json.loads((folder / "read.json").read_text()), outcome)
    if check.parts_may_be_joined:
        compare_joined(losses, outcome)
    return outcome


def line(outcome: Outcome) -> str:
    """Write an outcome as a line of the table."""
    joined = f", {outcome.n_joined} joined at least {outcome.joined_iou_least:.4f}" if outcome.n_joined else ""
    parted = f", {outcome.n_parted} in parts" if outcome.n_parted else ""
    attributes = f", {outcome.n_attributes} attributes" if outcome.n_attributes else ""
    problems = f"  FAILED {len(outcome.problems)}: {outcome.problems[0]}" if outcome.problems else "  ok"
    return (
        f"{outcome.tool:17}{outcome.format:12}{outcome.form:8}{outcome.data:9}"
        f"{outcome.n_written:4} written {outcome.n_read:4} read, box off {outcome.box_off_px:.2f} px, "
        f"IoU at least {outcome.iou_least:.4f}{joined}{parted}{attributes}{problems}"
    )


if __name__ == "__main__":
    sys.exit(main())
