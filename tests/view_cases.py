"""A run over rendered scenes, made without models: true objects as they were found, with faults put among them."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from grounded_seg.coco.schema import JournalInstance, JournalLine
from grounded_seg.coco.write import annotation_from_instance, write_annotations
from grounded_seg.geometry.masks import area_px, coco_from_run_length, run_length_from_mask, tight_box_xyxy
from grounded_seg.records import Detection, Instance
from grounded_seg.runs.journal import text_of
from grounded_seg.scenes import KINDS, Scene, SceneObject, Split, render_scene

PROMPTS = {f"a {kind}": kind for kind in KINDS}
"""The class of each prompt."""
_WRONG_SHARE, _MISSED_SHARE = 0.25, 0.12


def made_run(folder: Path, n_scenes: int, short_side: int = 480) -> Path:
    """Render scenes, and write a run over them into `run`, its truth into `truth.json`; the same files each time."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(5)
    lines: list[JournalLine] = []
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    ids = {kind: number for number, kind in enumerate(KINDS, start=1)}
    truth["categories"] = [{"id": number, "name": kind} for kind, number in ids.items()]
    for index in range(n_scenes):
        scene = render_scene(Split.TEST, index, short_side)
        name = f"scene-{index:03}.png"
        Image.fromarray(scene.pixels).save(folder / "images" / name)
        size = {"width": scene.size.width, "height": scene.size.height}
        truth["images"].append({"id": index + 1, "file_name": name, **size})
        for one in scene.objects:
            mask = run_length_from_mask(one.mask)
            about = {"id": len(truth["annotations"]) + 1, "image_id": index + 1, "category_id": ids[one.kind]}
            x0, y0, x1, y1 = one.box_xyxy
            shape = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": area_px(mask), "iscrowd": 0}
            truth["annotations"].append(about | shape | {"segmentation": coco_from_run_length(mask)})
        lines.append(
            {
                "file_name": name,
                "status": "done",
                "width": scene.size.width,
                "height": scene.size.height,
                "instances": found_on(scene, rng),
                "reason": None,
                "error": None,
            }
        )
    (folder / "truth.json").write_text(json.dumps(truth))
    write_run(folder / "run", folder / "images", lines)
    return folder / "run"


def write_run(run: Path, images: Path, lines: list[JournalLine], prompts: dict[str, str] | None = None) -> None:
    """Write the files of a finished run with these lines."""
    run.mkdir(parents=True, exist_ok=True)
    named = PROMPTS if prompts is None else prompts
    (run / "results.jsonl").write_text("".join(f"{text_of(line)}\n" for line in lines))
    manifest = {
        "prompts": named,
        "images": {"root": str(images), "count": len(lines), "sha256": ""},
        "settings": {"max_pixels": 10_000_000, "boxes_only": False},
        "exit_code": 0,
    }
    (run / "run.json").write_text(json.dumps(manifest))
    write_annotations(lines, tuple(dict.fromkeys(named.values())), run / "annotations.json", named)


def found_on(scene: Scene, rng: np.random.Generator) -> list[JournalInstance]:
    """What a detector finds: most objects, some under another kind, and now and then something that isn't there."""
    found = []
    for one in scene.objects:
        luck = rng.uniform()
        if luck < _MISSED_SHARE:
            continue
        is_wrong = luck > 1 - _WRONG_SHARE
        kind = str(rng.choice([kind for kind in KINDS if kind != one.kind])) if is_wrong else one.kind
        score = float(rng.uniform(0.15, 0.6) if is_wrong else rng.uniform(0.45, 0.99))
        found.append(_instance(_seen(one, rng), kind, score, leaves_box=luck > 0.9))
    if rng.uniform() < _WRONG_SHARE:
        found.append(_instance(_blob(scene, rng), str(rng.choice(list(KINDS))), float(rng.uniform(0.1, 0.5))))
    return sorted(found, key=lambda each: -each["score"])


def _instance(mask: npt.NDArray[np.bool_], kind: str, score: float, *, leaves_box: bool = False) -> JournalInstance:
    run_length = run_length_from_mask(mask)
    detection = Detection(label=kind, prompt=f"a {kind}", box_xyxy=tight_box_xyxy(run_length), score=score)
    return annotation_from_instance(Instance(detection, run_length, round(0.5 + score / 2, 3), leaves_box))


def _seen(one: SceneObject, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """An object's mask, a pixel or two larger."""
    side = int(rng.integers(1, 4))
    return cv2.dilate(one.mask.view(np.uint8), np.ones((side, side), np.uint8)).astype(bool)


def _blob(scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    canvas = np.zeros((scene.size.height, scene.size.width), np.uint8)
    centre = (int(rng.integers(40, scene.size.width - 40)), int(rng.integers(40, scene.size.height - 40)))
    cv2.ellipse(canvas, centre, (int(rng.integers(15, 50)), int(rng.integers(15, 40))), 30, 0, 360, 1, -1)
    return canvas.astype(bool)
