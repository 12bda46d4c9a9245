"""Read every export back with the readers of label tools, and compare with what was written.

    python tests/interop/read_back.py [--tools supervision labelme ...] [--output interop.json]

Each tool has an environment of its own in `.cache/interop/TOOL`, made when it is missing, because they want other
releases of OpenCV and numpy than this package and each other. Files are the only interface. A reader script writes what
it read in the form of `reader_output.py`. Ends with exit code 1 if a label is missing or of another class, a box is off
by more than a pixel, a mask by more than the format allows, or a score is another one. A tool that can't be
installed is skipped, and the reason printed.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from grounded_seg.coco.read import CocoReader
from grounded_seg.export import export_labels
from grounded_seg.export_settings import ExportSettings, LabelFormat, MaskForm, Pictures
from grounded_seg.formats.yolo import JOINED
from grounded_seg.labels import Label, Losses
from grounded_seg.masks import (
    area_px,
    coco_from_run_length,
    mask_from_run_length,
    mask_iou,
    run_length_from_coco,
    run_length_from_mask,
    run_length_from_polygons,
    tight_box_xyxy,
)
from grounded_seg.polygons import centre_polygons_from_mask
from grounded_seg.records import ImageSize, RunLength
from grounded_seg.scenes.render import Split, render_scene

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "interop"
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
N_SCENES = 8

TOOLS = {
    "supervision": ["supervision"],
    "label-studio-sdk": ["label-studio-sdk"],
    "labelme": ["labelme"],
    "datumaro": ["datumaro"],
    "fiftyone": ["fiftyone", "pycocotools"],
}
"""The packages that each needs. The largest comes last."""
INSTALL_LIMIT_S = 480


@dataclass(frozen=True)
class Check:
    """One format, read by one tool."""

    tool: str
    format: LabelFormat
    form: MaskForm
    iou_least: float | None = None
    """What a mask has to have in common with the one written; None where the format holds none."""
    has_scores: bool = False
    parts_may_be_joined: bool = False
    """The format has one outline for each label, so masks of several parts grow by the lines that join them. Such a
    mask has to lose nothing, and to be as like the one written as the export has said."""
    parts_are_labels: bool = False
    """The format has one outline for each label, and makes labels of a mask's parts; so each is compared by itself."""


CHECKS = (
    Check("supervision", LabelFormat.COCO, MaskForm.RLE, 1.0),
    Check("supervision", LabelFormat.YOLO, MaskForm.POLYGON, 0.98, parts_may_be_joined=True),
    Check("supervision", LabelFormat.YOLO, MaskForm.NONE),
    Check("supervision", LabelFormat.VOC, MaskForm.NONE),
    Check("labelme", LabelFormat.LABELME, MaskForm.RLE, 1.0, has_scores=True),
    Check("labelme", LabelFormat.LABELME, MaskForm.POLYGON, 0.98, has_scores=True),
    Check("label-studio-sdk", LabelFormat.LABELSTUDIO, MaskForm.RLE, 1.0, has_scores=True),
    Check("label-studio-sdk", LabelFormat.LABELSTUDIO, MaskForm.POLYGON, 0.98, has_scores=True, parts_are_labels=True),
    Check("label-studio-sdk", LabelFormat.LABELSTUDIO, MaskForm.NONE, has_scores=True),
    Check("datumaro", LabelFormat.COCO, MaskForm.RLE, 1.0, has_scores=True),
    Check("datumaro", LabelFormat.COCO, MaskForm.POLYGON, 0.98, has_scores=True),
    Check("datumaro", LabelFormat.CVAT, MaskForm.RLE, 1.0, has_scores=True),
    Check("fiftyone", LabelFormat.FIFTYONE, MaskForm.RLE, 1.0, has_scores=True),
    Check("fiftyone", LabelFormat.FIFTYONE, MaskForm.POLYGON, 0.98, has_scores=True),
    Check("fiftyone", LabelFormat.FIFTYONE, MaskForm.NONE, has_scores=True),
)


@dataclass
class Outcome:
    """What one check came to."""

    tool: str
    format: str
    form: str
    data: str
    n_written: int = 0
    n_read: int = 0
    box_off_px: float = 0.0
    iou_least: float = 1.0
    n_joined: int = 0
    """Masks of several parts whose parts the format joins, not held against the least IoU."""
    joined_iou_least: float = 1.0
    """Of those."""
    n_parted: int = 0
    """Masks of several parts that the format makes labels of; `n_written` counts the parts."""
    problems: list[str] = field(default_factory=list)


def main() -> int:
    """Run the checks whose tools are asked for, and print a table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
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
                if check.tool == tool:
                    outcomes.append(outcome := carry_out(check, python, data, source, images))
                    print(line(outcome), flush=True)
    if chosen.output:
        chosen.output.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    return int(any(outcome.problems for outcome in outcomes))


def environment(tool: str) -> Path:
    """Make a tool's environment where it is missing; the stamp is written last."""
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
            *TOOLS[tool],
        ]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
        (folder / "complete").touch()
    return python


def sources() -> Iterator[tuple[str, Path, Path]]:
    """Give the data sets: a name, the COCO file, and the folder of the images."""
    yield "scenes", write_scenes(CACHE / "scenes"), CACHE / "scenes"
    if PHOTOS.exists():
        yield "photos", PHOTOS / "instances.json", PHOTOS / "images"


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
                    "attributes": {"label": shown.colour},
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
    compare_joined(losses, outcome)
    return outcome


def compare(check: Check, source: Path, read: dict[str, list[dict[str, Any]]], outcome: Outcome) -> None:
    """Set every label that was written beside the one read that is most like it."""
    keeps_crowds = check.format in (LabelFormat.COCO, LabelFormat.CVAT, LabelFormat.FIFTYONE)
    with CocoReader(source) as written:
        for image_id in written.images:
            image = written.labelled_image(image_id)
            labels = [label for label in image.labels if keeps_crowds or not label.is_crowd]
            if check.parts_are_labels:
                parted = [parts_of(label) for label in labels]
                outcome.n_parted += sum(len(parts) > 1 for parts in parted)
                labels = [part for parts in parted for part in parts]
            found = read.get(image.file_name, read.get(image.file_name.replace("/", "__"), []))
            outcome.n_written += len(labels)
            outcome.n_read += len(found)
            if len(labels) != len(found):
                outcome.problems.append(f"{image.file_name}: {len(labels)} labels written, {len(found)} read")
            for label in labels:
                rest = [one for one in found if one["class"] == label.category]
                if not rest:
                    outcome.problems.append(f"{image.file_name}: no {label.category} was read")
                    continue
                twin = min(rest, key=lambda one, label=label: unlike(label, one))  # type: ignore[misc]
                found = [one for one in found if one is not twin]
                compare_label(check, image.file_name, label, twin, outcome)


def compare_joined(losses: Losses, outcome: Outcome) -> None:
    """Compare what became of masks of several parts with what the export has said of them."""
    n_told = losses.counts[JOINED]
    if n_told != outcome.n_joined:
        outcome.problems.append(f"the export tells of {n_told} joined masks, {outcome.n_joined} were read")
    if outcome.joined_iou_least < losses.iou_least - 1e-6:
        outcome.problems.append(
            f"a joined mask has an IoU of {outcome.joined_iou_least:.4f}, the export has said {losses.iou_least:.4f}"
        )


def parts_of(label: Label) -> list[Label]:
    """Make a label of each part of the mask; pixels that touch at a corner only are parts of their own."""
    if label.mask is None:
        return [label]
    n_numbers, numbers = cv2.connectedComponents(mask_from_run_length(label.mask).astype(np.uint8), connectivity=4)
    masks = [run_length_from_mask(numbers == number) for number in range(1, n_numbers)]
    return [replace(label, mask=mask, box_xyxy=tight_box_xyxy(mask)) for mask in masks]


def mask_of(one: dict[str, Any]) -> RunLength | None:
    """Give the mask that was read; polygons are rasterised as pycocotools does."""
    if one.get("polygons") is not None:
        height, width = one["polygons"]["size"]
        return run_length_from_polygons(one["polygons"]["rings"], ImageSize(width, height))
    return None if one["mask"] is None else run_length_from_coco(one["mask"])


def unlike(label: Label, one: dict[str, Any]) -> float:
    """Say how far apart two labels are: in pixels, and by their masks where boxes are equal."""
    overlap = 0.0
    if label.mask is not None and (mask := mask_of(one)) is not None:
        overlap = float(mask_iou([label.mask], [mask])[0, 0])
    return box_distance_px(label, one) - overlap


def box_distance_px(label: Label, one: dict[str, Any]) -> float:
    """Compare the edges with those of the label's box, or of its mask, whichever the tool has taken."""
    boxes = [label.box_xyxy, *([] if label.mask is None else [tight_box_xyxy(label.mask)])]
    return min(float(np.abs(np.subtract(box, one["box"])).max()) for box in boxes)


def compare_label(check: Check, name: str, label: Label, one: dict[str, Any], outcome: Outcome) -> None:
    """Compare a label with its twin."""
    off = box_distance_px(label, one)
    outcome.box_off_px = max(outcome.box_off_px, off)
    if off > 1:
        outcome.problems.append(f"{name}: the box of a {label.category} is {off:.2f} px off")
    if check.has_scores and label.score is not None and abs((one["score"] or 0) - label.score) > 1e-6:
        outcome.problems.append(f"{name}: the score {label.score} came back as {one['score']}")
    if check.iou_least is None or label.mask is None:
        return
    mask = mask_of(one)
    if mask is None:
        outcome.problems.append(f"{name}: the mask of a {label.category} is lost")
        return
    iou = float(mask_iou([label.mask], [mask])[0, 0])
    if check.parts_may_be_joined and n_parts(label.mask) > 1:
        outcome.n_joined += 1
        outcome.joined_iou_least = min(outcome.joined_iou_least, iou)
        n_shared = iou / (1 + iou) * (area_px(label.mask) + area_px(mask))
        if n_shared < area_px(label.mask) - 1e-6:
            outcome.problems.append(f"{name}: the joined mask of a {label.category} has lost pixels")
        return
    outcome.iou_least = min(outcome.iou_least, iou)
    if iou < check.iou_least:
        outcome.problems.append(f"{name}: the mask of a {label.category} has an IoU of {iou:.4f}")


def n_parts(mask: RunLength) -> int:
    """Count the outlines that the mask needs."""
    return len(centre_polygons_from_mask(mask))


def line(outcome: Outcome) -> str:
    """Write an outcome as a line of the table."""
    joined = f", {outcome.n_joined} joined at least {outcome.joined_iou_least:.4f}" if outcome.n_joined else ""
    parted = f", {outcome.n_parted} in parts" if outcome.n_parted else ""
    problems = f"  FAILED {len(outcome.problems)}: {outcome.problems[0]}" if outcome.problems else "  ok"
    return (
        f"{outcome.tool:17}{outcome.format:12}{outcome.form:8}{outcome.data:7}"
        f"{outcome.n_written:4} written {outcome.n_read:4} read, box off {outcome.box_off_px:.2f} px, "
        f"IoU at least {outcome.iou_least:.4f}{joined}{parted}{problems}"
    )


if __name__ == "__main__":
    sys.exit(main())
