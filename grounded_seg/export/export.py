"""From a run or a COCO file to the files of a label tool, an image at a time, in memory that hardly grows."""

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from grounded_seg.coco.check.validate import has_portable_name
from grounded_seg.coco.labels import LabelledImage, LabelWriter, Losses
from grounded_seg.coco.stream import CocoReader
from grounded_seg.errors import InputError, UsageError
from grounded_seg.export.coco import CocoWriter
from grounded_seg.export.cvat import CvatLabels
from grounded_seg.export.fiftyone import image_for_fiftyone
from grounded_seg.export.labelme import LabelmeWriter
from grounded_seg.export.labelstudio import LabelStudioWriter
from grounded_seg.export.png_masks import MaskPngWriter
from grounded_seg.export.settings import ExportSettings, LabelFormat, MaskForm, Pictures
from grounded_seg.export.voc import VocWriter
from grounded_seg.export.yolo import YoloWriter
from grounded_seg.files import as_output_error
from grounded_seg.runs.folder import RunFolder

SPLITS = ("train", "valid", "test")
_UNFINISHED = ".part"
"""Ends the name of a folder that is being written."""


@dataclass
class ExportReport:
    """What an export came to."""

    n_images: int = 0
    n_labels: int = 0
    n_left_out: int = 0
    """Labels below the score, or of other classes."""
    images_by_split: dict[str, int] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)


def export_labels(settings: ExportSettings) -> ExportReport:
    """Write a data set in another format.

    The labels of all images are written, of those without any too. The same input and seed give the same files.

    Raises:
        UsageError: If the output folder is in use, a class isn't in the file, or images are asked for and nothing says
            where they are.
        InputError: If the file can't be read, or an image isn't where it should be.
        OutputError: If the results can't be written.
    """
    root = _images_root(settings) if settings.pictures is not Pictures.NONE else None
    _check_output(settings.output)
    annotations = RunFolder(settings.source).annotations if os.path.isdir(settings.source) else settings.source
    report = ExportReport()
    with CocoReader(annotations) as source, as_output_error(), _whole_or_nothing(settings.output) as folder:
        categories = _categories(source, settings.classes)
        writer = _writer(replace(settings, output=folder), source, categories)
        report.losses = writer.losses
        if not isinstance(writer, CocoWriter):
            _count_head(source, categories, report.losses)
        cvat_labels = CvatLabels(list(categories.values()))
        for split, image_id in _in_splits(source, settings):
            labelled = source.labelled_image(image_id)
            kept = _selected(labelled, categories, settings.min_score)
            if settings.format is LabelFormat.FIFTYONE:
                kept = image_for_fiftyone(kept, report.losses, has_masks=settings.mask_form is not MaskForm.NONE)
            if settings.format is LabelFormat.CVAT:
                cvat_labels.add(kept)
            writer.add(kept, split)
            report.n_images += 1
            report.n_labels += len(kept.labels)
            report.n_left_out += len(labelled.labels) - len(kept.labels)
            report.images_by_split[split] = report.images_by_split.get(split, 0) + 1
            if root is not None:
                place = folder / writer.picture_name(labelled.file_name, split)
                _place_picture(root, labelled.file_name, place, settings.pictures)
        writer.close()
        if settings.format is LabelFormat.CVAT:
            cvat_labels.write(folder / "labels.json")
    return report


def split_names(file_names: Sequence[str], shares: Sequence[int], seed: int) -> dict[str, str]:
    """Deal images to train, valid and test at random; each gets one at least where its share and the images allow.

    The order of the names has no influence, so that another listing of the same images is dealt alike.

    Args:
        file_names: Each once.
        shares: Of train and valid, or of all three; they needn't add up to 100.
        seed: Another one deals otherwise.

    >>> sorted(split_names(["a", "b", "c"], (8, 1, 1), 0).values())
    ['test', 'train', 'valid']
    """
    names = sorted(file_names)
    random.Random(seed).shuffle(names)  # noqa: S311  (reproducible is the point)
    wanted = [len(names) * share / sum(shares) for share in shares]
    sizes = [max(round(number), 1 if number > 0 else 0) for number in wanted[1:]]
    # The first split takes what is left, and keeps one for itself.
    while sum(sizes) > max(len(names) - 1, 0):
        sizes[sizes.index(max(sizes))] -= 1
    dealt = {}
    for split, size in zip(SPLITS[1:], sizes, strict=False):
        dealt.update(dict.fromkeys((names.pop() for _ in range(size)), split))
    return {**dealt, **dict.fromkeys(names, SPLITS[0])}


def _check_output(output: Path) -> None:
    """Refuse a folder with anything in it.

    Raises:
        UsageError: If there is something.
        OutputError: If it can't be looked into.
    """
    with as_output_error():
        # What an export that was killed left behind is taken away by the next one.
        is_used = os.path.lexists(output) and (
            not os.path.isdir(output) or any(path.name != _UNFINISHED for path in output.iterdir())
        )
    if is_used:
        raise UsageError(f"{output} is in use; name another folder with --output")


@contextmanager
def _whole_or_nothing(output: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes `output` at the end, or goes away if something goes wrong.

    An empty folder that is there already is filled and stays the same one: it may be the working folder, or a volume.
    """
    is_there = os.path.isdir(output)
    unfinished = output / _UNFINISHED if is_there else output.with_name(f".{output.name}{_UNFINISHED}")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        if is_there:
            for path in sorted(unfinished.iterdir()):
                path.rename(output / path.name)
        else:
            unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _in_splits(source: CocoReader, settings: ExportSettings) -> list[tuple[str, int]]:
    """List the images in the order of the file, split by split."""
    names = {image_id: str(image.get("file_name")) for image_id, image in source.images.items()}
    if len(set(names.values())) < len(names) or not all(map(has_portable_name, source.images.values())):
        raise InputError(
            f"{source.path} lists images whose file_name is there twice or is no path below a folder; "
            f"`grounded-seg validate {source.path} --fix OUT` lists and repairs what is wrong"
        )
    if not settings.split:
        return [("", image_id) for image_id in names]
    dealt = split_names(list(names.values()), settings.split, settings.seed)
    return [(split, image_id) for split in SPLITS for image_id, name in names.items() if dealt[name] == split]


def _categories(source: CocoReader, wanted: Sequence[str]) -> dict[int, str]:
    """Give the classes to write, by id, in the order of the file."""
    names = {number: str(category.get("name")) for number, category in source.categories.items()}
    unknown = [name for name in wanted if name not in names.values()]
    if unknown:
        known = ", ".join(names.values())
        raise UsageError(f"{source.path} has no class {', '.join(unknown)}; it has {known}")
    return {number: name for number, name in names.items() if not wanted or name in wanted}


def _selected(image: LabelledImage, categories: Mapping[int, str], min_score: float) -> LabelledImage:
    """Keep the labels of those classes that have the score, or none at all."""
    names = set(categories.values())
    return replace(
        image,
        labels=tuple(
            label
            for label in image.labels
            if label.category in names and (label.score is None or label.score >= min_score)
        ),
    )


def _writer(settings: ExportSettings, source: CocoReader, categories: Mapping[int, str]) -> LabelWriter:
    output, tolerance_px = settings.output, settings.tolerance_px
    names = list(dict.fromkeys(categories.values()))
    file_names = [str(image.get("file_name")) for image in source.images.values()]
    form = settings.mask_form
    match settings.format:
        case LabelFormat.YOLO:
            # A data set of boxes is written as boxes.
            form = form if source.has_masks else MaskForm.NONE
            return YoloWriter(output, names, file_names, form, tolerance_px)
        case LabelFormat.VOC:
            return VocWriter(output, file_names)
        case LabelFormat.LABELME:
            return LabelmeWriter(output, file_names, form, tolerance_px)
        case LabelFormat.LABELSTUDIO:
            return LabelStudioWriter(output, names, form, tolerance_px)
        case LabelFormat.MASKS:
            return MaskPngWriter(output, names)
        case LabelFormat.COCO | LabelFormat.CVAT | LabelFormat.FIFTYONE:
            head = {**source.sections, "categories": [source.categories[number] for number in categories]}
            return CocoWriter(output, head, form, tolerance_px)


def _count_head(source: CocoReader, categories: Mapping[int, str], losses: Losses) -> None:
    """Count what a COCO file says beside images, labels and the names of classes; other formats have no room for it."""
    for name, section in source.sections.items():
        # Every file has an info, and it says nothing of the labels.
        if name != "info":
            losses.add(f"{name} left out", len(section) if isinstance(section, list | Mapping) else 1)
    for number in categories:
        further = source.categories[number].items()
        losses.add_all("classes", [key for key, value in further if key not in ("id", "name") and value])


def _images_root(settings: ExportSettings) -> Path:
    """Find the folder of the images: as given, or as the run wrote it down."""
    if settings.images is not None:
        return settings.images
    manifest = RunFolder(settings.source).manifest
    try:
        return Path(json.loads(manifest.read_text(encoding="utf-8"))["images"]["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{settings.source} doesn't say where the images are; name their folder with --images"
        ) from error


def _place_picture(root: Path, file_name: str, place: Path, pictures: Pictures) -> None:
    """Copy or link an image.

    Raises:
        InputError: If it isn't there, or its name leads out of the folder.
    """
    inside = PurePosixPath(file_name)
    origin = root / inside
    if inside.is_absolute() or ".." in inside.parts or not os.path.isfile(origin):
        raise InputError(f"no image is at {origin}; name the folder of the images with --images")
    place.parent.mkdir(parents=True, exist_ok=True)
    if pictures is Pictures.LINK:
        place.symlink_to(origin.resolve())
    else:
        shutil.copyfile(origin, place)
