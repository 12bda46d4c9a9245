"""Read COCO files as they are with a tool's own COCO reader, and write what it read, or at what it stopped.

    python read_raw.py TOOL JOBS.json OUTPUT.json

Runs in the tool's environment. Jobs are names and folders, each with `annotations.json` and `images`.
"""

import contextlib
import importlib.abc
import importlib.machinery
import io
import json
import multiprocessing
import os
import re
import resource
import sys
import sysconfig
import tempfile
import types
from importlib.metadata import version
from pathlib import Path

LIMIT_S = 30
RUN_LENGTHS = re.compile(r'"segmentation": \{[^{}]*\}')
DISTRIBUTIONS = {"x-anylabeling": "x-anylabeling-cvhub"}


def pycocotools(folder):  # type: ignore[no-untyped-def]
    """Read with COCO, and let COCOeval find all objects of the file in itself."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / "annotations.json"))
    labels = labels_of_api(truth)
    found = [{**one, "score": 1.0} for one in truth.dataset["annotations"] if not one.get("iscrowd")]
    has_masks = any(one.get("segmentation") for one in found)
    for kind in ("bbox", "segm") if has_masks else ("bbox",):
        # Without masks in any, it can measure boxes only.
        wanted = [one for one in found if kind == "bbox" or one.get("segmentation")]
        results = [{key: one[key] for key in one if key not in ("area", "iscrowd", "id")} for one in wanted]
        if kind == "bbox":
            for one in results:
                one.pop("segmentation", None)
        else:
            results = [
                {**one, "segmentation": truth.annToRLE(whole)} for one, whole in zip(results, wanted, strict=True)
            ]
            for one in results:
                one.pop("bbox", None)
            truth.dataset["annotations"] = [one for one in truth.dataset["annotations"] if one.get("segmentation")]
            truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        ap = evaluation.eval["precision"]
        ap = float(ap[ap > -1].mean()) if (ap > -1).any() else -1.0
        if ap < 0.999:
            raise MisreadError(f"COCOeval gives {kind} AP {ap:.2f} to the file's own objects")
    return labels


class MisreadError(Exception):
    """The tool goes on, with another figure than the file's."""


def labels_of_api(truth):  # type: ignore[no-untyped-def]
    """Give what pycocotools' COCO hands out image by image."""
    labels = []
    for number in truth.getImgIds():
        image = truth.loadImgs(number)[0]
        for one in truth.loadAnns(truth.getAnnIds(imgIds=number)):
            x, y, width, height = one["bbox"]
            name = truth.loadCats(one["category_id"])[0]["name"]
            area = float(truth.annToMask(one).sum()) if one.get("segmentation") else None
            labels.append((image["file_name"], name, (x, y, x + width, y + height), area))
    return labels


def torchvision(folder):  # type: ignore[no-untyped-def]
    """Read with CocoDetection: targets are the annotations as they are."""
    from torchvision.datasets import CocoDetection

    data = CocoDetection(str(folder / "images"), str(folder / "annotations.json"))
    labels = []
    for index, number in enumerate(data.ids):
        _, target = data[index]
        name = data.coco.loadImgs(number)[0]["file_name"]
        for one in target:
            x, y, width, height = one["bbox"]
            label = data.coco.cats[one["category_id"]]["name"]
            labels.append((name, label, (x, y, x + width, y + height), None))
    return labels


def ultralytics(folder):  # type: ignore[no-untyped-def]
    """Convert to YOLO, boxes and outlines, and check the rows as its trainer does before the first epoch."""
    from ultralytics.data import converter
    from ultralytics.data.utils import verify_image_label

    document = json.loads((folder / "annotations.json").read_text(encoding="utf-8-sig"))
    # Its classes count from 0, one below the category's id.
    names = {one["id"] - 1: one["name"] for one in document["categories"] if isinstance(one.get("id"), int)}
    labels = []
    for segments in (False, True):
        with tempfile.TemporaryDirectory() as work:
            source = Path(work, "source")
            source.mkdir()
            (source / "instances_all.json").write_bytes((folder / "annotations.json").read_bytes())
            target = Path(work, "deep", "out")
            converter.convert_coco(str(source), str(target), use_segments=segments, cls91to80=False)
            outside = [path for path in Path(work).rglob("*.txt") if target not in path.parents]
            if outside:
                raise MisreadError("convert_coco writes labels outside of its folder")
            if segments:
                continue
            n_rows = 0
            for image in document["images"]:
                rows = (target / "labels" / "all" / str(image["file_name"])).with_suffix(".txt")
                if not rows.exists():
                    continue
                picture = folder / "images" / image["file_name"]
                _, found, shape, *_, message = verify_image_label(
                    (str(picture), str(rows), "", False, max(len(names), 1), 0, 0, False)
                )
                if found is None:
                    raise MisreadError(f"its trainer leaves the image out: {message.rpartition(': ')[2]}")
                height, width = shape
                for number, cx, cy, w, h in found.tolist() if hasattr(found, "tolist") else found:
                    n_rows += 1
                    edges = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
                    labels.append((image["file_name"], names.get(int(number), f"class {number:g}"), edges, None))
    return labels


def supervision(folder):  # type: ignore[no-untyped-def]
    """Read with DetectionDataset.from_coco."""
    import supervision as sv

    root = folder / "images"
    data = sv.DetectionDataset.from_coco(str(root), str(folder / "annotations.json"))
    labels = []
    for path, found in data.annotations.items():
        name = Path(path).resolve().relative_to(root.resolve()).as_posix()
        for place in range(len(found)):
            area = None if found.mask is None else float(found.mask[place].sum())
            labels.append((name, data.classes[found.class_id[place]], found.xyxy[place].tolist(), area))
    return labels


def datumaro(folder):  # type: ignore[no-untyped-def]
    """Read with Datumaro, which is CVAT's importer; parts of one group are one label."""
    import shutil

    from datumaro import Dataset
    from datumaro.components.annotation import AnnotationType

    with tempfile.TemporaryDirectory() as work:
        layout = Path(work)
        (layout / "annotations").mkdir()
        shutil.copy(folder / "annotations.json", layout / "annotations" / "instances_default.json")
        shutil.copytree(folder / "images", layout / "images" / "default")
        data = Dataset.import_from(str(layout), "coco_instances")
        names = [label.name for label in data.categories()[AnnotationType.label]]
        labels = []
        for item in data:
            name = (
                Path(item.media.path).relative_to(layout / "images" / "default").as_posix() if item.media else item.id
            )
            # A box beside its mask has the mask's group.
            boxes = {one.group: one for one in item.annotations if one.type == AnnotationType.bbox and one.group}
            groups = [one for one in item.annotations if boxes.get(one.group, one) is one]
            for one in groups:
                x, y, width, height = one.get_bbox()
                area = float(one.get_area()) if one.type != AnnotationType.bbox else None
                labels.append((name, names[one.label], (x, y, x + width, y + height), area))
    return labels


def label_studio_sdk(folder):  # type: ignore[no-untyped-def]
    """Read with the converter's COCO importer, rectangles only: outlines are regions of their own.

    It stops at every run-length mask, which is told by a rule of its own; to try the others, these are taken out.
    """
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work, "source.json"), Path(work, "tasks.json")
        text = (folder / "annotations.json").read_bytes().decode("utf-8", "surrogateescape")
        source.write_text(RUN_LENGTHS.sub('"segmentation": []', text), encoding="utf-8", errors="surrogateescape")
        convert_coco_to_ls(str(source), str(target))
        tasks = json.loads(target.read_text())
    labels = []
    for task in tasks:
        name = task["data"]["image"].partition("?d=")[2]
        for one in task["annotations"][0]["result"]:
            if one["type"] == "rectanglelabels":
                value, width, height = one["value"], one["original_width"] / 100, one["original_height"] / 100
                x, y = value["x"] * width, value["y"] * height
                edges = (x, y, x + value["width"] * width, y + value["height"] * height)
                labels.append((name, value["rectanglelabels"][0], edges, None))
    return labels


def fiftyone(folder):  # type: ignore[no-untyped-def]
    """Read with FiftyOne's COCO importer, without its database."""
    os.environ.update(FIFTYONE_DISABLE_SERVICES="1", FIFTYONE_DO_NOT_TRACK="true")
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    images = (folder / "images").resolve()
    labels = []
    source = str((folder / "annotations.json").resolve())
    # With masks it leaves out what has none.
    for kind in ("segmentations", "detections"):
        labels.clear()
        with COCODetectionDatasetImporter(data_path=str(images), labels_path=source, label_types=kind) as importer:
            for path, metadata, found in importer:
                sides = (metadata.width, metadata.height)
                for one in found.detections if found else ():
                    x, y, width, height = (
                        float(a) * b for a, b in zip(one.bounding_box, (*sides, *sides), strict=True)
                    )
                    name = Path(path).resolve().relative_to(images).as_posix()
                    labels.append((name, one.label, (x, y, x + width, y + height), None))
    return labels


class OfAnything(type):
    """Has every name, and works with every operator that flags have."""

    def __getattr__(cls, name):  # type: ignore[no-untyped-def]
        """Give itself."""
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __or__(cls, other):  # type: ignore[no-untyped-def]
        """Give itself."""
        return cls


class Anything(metaclass=OfAnything):
    """Stands for each of Qt's classes, and may be called as it likes."""

    def __init__(self, *_, **__) -> None:  # type: ignore[no-untyped-def]
        """Take anything."""

    def __getattr__(self, name):  # type: ignore[no-untyped-def]
        """Give the class."""
        return Anything

    def __call__(self, *given, **_):  # type: ignore[no-untyped-def]
        """Give back what is decorated."""
        return given[0] if given else self


class NoQt(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for the modules of PyQt6, and for X-AnyLabeling's own but for those that read COCO."""

    KEPT = ("anylabeling.app_info", "anylabeling.views.labeling.label_converter", "anylabeling.views.labeling.schema")
    ROOT = sysconfig.get_paths()["purelib"]

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Take what belongs to Qt, and the window's own modules, which need a dozen other packages."""
        if name.partition(".")[0] not in ("PyQt6", "anylabeling") or name in self.KEPT:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
        spec.submodule_search_locations = [str(Path(self.ROOT, *name.split(".")))]
        return spec

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        """Give a module that has every name."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = OfAnything.__getattr__.__get__(Anything)
        return module

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        """Run nothing."""


def x_anylabeling(folder):  # type: ignore[no-untyped-def]
    """Read with its converter, boxes and then outlines; its window needs Qt, which the converter doesn't."""
    sys.meta_path.insert(0, NoQt())
    from anylabeling.views.labeling.label_converter import LabelConverter

    labels = []
    for mode in ("rectangle", "polygon"):
        with tempfile.TemporaryDirectory() as work:
            LabelConverter().coco_to_custom(str(folder / "annotations.json"), work, mode)
            for path in sorted(Path(work).glob("*.json")):
                found = json.loads(path.read_text())
                for shape in found["shapes"] if mode == "rectangle" else ():
                    xs, ys = zip(*shape["points"], strict=True)
                    labels.append((found["imagePath"], shape["label"], (min(xs), min(ys), max(xs), max(ys)), None))
    return labels


def read_one(reader, folder, answer):  # type: ignore[no-untyped-def]
    """Read one file in a process of its own, with little memory: some files take all that there is."""
    soft = 12 << 30
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            labels = reader(Path(folder))
        answer.send({"labels": [(*one[:2], [float(edge) for edge in one[2]], one[3]) for one in labels]})
    except MisreadError as error:
        answer.send({"misread": str(error)})
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever a tool stops at is what is asked for)
        while error.__cause__ is not None:
            error = error.__cause__
        told = (str(error).strip() or "no reason").splitlines()[0][:100]
        answer.send({"stops": f"{type(error).__name__}: {told}"})


def main() -> None:
    """Read every job; what a tool raises is the outcome."""
    tool, jobs, output = sys.argv[1:]
    reader = globals()[tool.replace("-", "_")]
    folders = json.loads(Path(jobs).read_text())
    # Imported here once, and not in each process.
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        reader(Path(folders["right"]))
    read = {}
    for name, folder in folders.items():
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=read_one, args=(reader, folder, theirs))
        process.start()
        theirs.close()
        try:
            read[name] = ours.recv() if ours.poll(LIMIT_S) else {"stops": f"no answer within {LIMIT_S} s"}
        except EOFError:
            read[name] = {"stops": "the process ended"}
        process.kill()
    Path(output).write_text(json.dumps({"version": version(DISTRIBUTIONS.get(tool, tool)), "read": read}))


if __name__ == "__main__":
    main()
