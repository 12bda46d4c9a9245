"""Export of a run or a COCO file to a label tool, an image at a time, in memory that hardly grows."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from grounded_seg.coco.image_files import check_sizes, file_of
from grounded_seg.coco.image_names import names_among
from grounded_seg.coco.stream import CocoReader, LabelledImage
from grounded_seg.coco.values import Notes, image_size
from grounded_seg.errors import InputError, UsageError
from grounded_seg.export.coco import CocoWriter, CvatWriter, FiftyoneWriter
from grounded_seg.export.labelme import LabelmeWriter
from grounded_seg.export.labelstudio import LabelStudioWriter
from grounded_seg.export.png_masks import MaskPngWriter
from grounded_seg.export.settings import ExportSettings, LabelFormat, Pictures
from grounded_seg.export.voc import VocWriter
from grounded_seg.export.writer import LabelWriter, Losses, Target
from grounded_seg.export.yolo import YoloWriter
from grounded_seg.files import UNFINISHED, as_output_error, whole_folder
from grounded_seg.records import ImageSize
from grounded_seg.review.decisions_applied import ReviewCounts, check_reviewable, reviewed_file
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.manifest import read_manifest, refuse_evaluation
from grounded_seg.text.documents import json_in

_WRITERS: Mapping[LabelFormat, Callable[[Target], LabelWriter]] = {
    LabelFormat.COCO: CocoWriter,
    LabelFormat.YOLO: YoloWriter,
    LabelFormat.VOC: VocWriter,
    LabelFormat.LABELME: LabelmeWriter,
    LabelFormat.LABELSTUDIO: LabelStudioWriter,
    LabelFormat.CVAT: CvatWriter,
    LabelFormat.FIFTYONE: FiftyoneWriter,
    LabelFormat.MASKS: MaskPngWriter,
}
SPLITS = ("train", "valid", "test")
_CHUNK_BYTES = 1 << 20


@dataclass
class ExportReport:
    """Counts of an export: images, labels, and what the format couldn't hold."""

    images_by_split: Counter[str] = field(default_factory=Counter)
    n_labels: int = 0
    n_left_out: int = 0
    """Labels below the score, or of other classes."""
    losses: Losses = field(default_factory=Losses)
    notes: tuple[str, ...] = ()
    """What was read in spite of its form, a line each."""
    review: ReviewCounts | None = None
    """What the decisions left of a run; None where they weren't asked for."""

    @property
    def n_images(self) -> int:
        """Of all splits."""
        return self.images_by_split.total()


def export_labels(
    settings: ExportSettings, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> ExportReport:
    """Write a data set in another format; `progress` is told how many images are done, and how many there are.

    Every image is written, those without labels too. The same input and seed give the same files.
    """
    root = _images_root(settings) if settings.pictures is not Pictures.NONE or settings.images is not None else None
    _check_output(settings.output)
    report = ExportReport()
    with (
        _annotations_of(settings, report) as annotations,
        CocoReader(annotations, settings.source if settings.reviewed else None) as source,
        as_output_error(settings.output),
        whole_folder(settings.output) as folder,
    ):
        notes = Notes()
        if root is not None:
            source.take_sizes(check_sizes(annotations, _named_sizes(source), root, notes))
        categories = _categories(source, settings.classes, notes)
        target = Target(
            output=folder,
            head={**source.sections, "categories": [source.categories[number] for number in categories]},
            file_names=tuple(str(image.get("file_name")) for image in source.images.values()),
            has_masks=source.has_masks,
            form=settings.mask_form,
            tolerance_px=settings.tolerance_px,
            numbered=source.numbered,
        )
        writer = _WRITERS[settings.format](target)
        report.losses = writer.losses
        for split, image_id in _in_splits(source, settings):
            labelled = source.labelled_image(image_id)
            kept = _selected(labelled, categories, settings.min_score)
            writer.add(kept, split)
            report.images_by_split[split] += 1
            report.n_labels += len(kept.labels)
            report.n_left_out += len(labelled.labels) - len(kept.labels)
            if root is not None and settings.pictures is not Pictures.NONE:
                place = folder / writer.picture_name(labelled.file_name, split)
                _place_picture(root, labelled.file_name, place, settings.pictures)
            progress(report.n_images, len(source.images))
        writer.close()
        report.notes = (*source.notes, *notes.lines())
    return report


@contextmanager
def _annotations_of(settings: ExportSettings, report: ExportReport) -> Iterator[Path]:
    """The COCO file: as given, that of a run, or what decisions left of that, which goes away after the block.

    A folder that has none yet, or never has, is refused.
    """
    source, folder = settings.source, RunFolder(settings.source)
    if os.path.isdir(source) and not os.path.exists(folder.annotations) and os.path.exists(folder.manifest):
        refuse_evaluation(read_manifest(folder.manifest), source)
        raise InputError(f"{source} isn't finished; finish it with run --resume, then export it")
    if settings.reviewed is None:
        yield folder.annotations if os.path.isdir(source) else source
        return
    check_reviewable(source)
    with reviewed_file(source, settings.reviewed) as (path, report.review):
        if not report.review.n_images:
            raise InputError(f"{folder.review} leaves no image; {report.review.remedy}")
        yield path


def split_names(file_names: Sequence[str], shares: Sequence[int], seed: int) -> dict[str, str]:
    """Split of each image, at random; a split has one image at least where its share and the images allow.

    The order of the names has no influence: another listing of the same images is split alike.

    Shares are those of train and valid, or of all three; they needn't add up to 100.

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
    """Refuse a folder with anything in it but what a killed export left, which the next one removes."""
    with as_output_error():
        is_folder = os.path.isdir(output)
        is_used = any(path.name != UNFINISHED for path in output.iterdir()) if is_folder else os.path.lexists(output)
    if is_used:
        raise UsageError(f"{output} is in use; name another folder with --output")


def _in_splits(source: CocoReader, settings: ExportSettings) -> list[tuple[str, int]]:
    """Split and id of each image, in the order of the file, split by split."""
    names = {image_id: str(image["file_name"]) for image_id, image in source.images.items()}
    name, n = Counter(names.values()).most_common(1)[0]
    if n > 1:
        raise InputError(
            f"{source.path} lists images whose file_name is there twice, such as {name!r}; "
            f"`grounded-seg validate {source.path} --fix OUT` lists and repairs what is wrong"
        )
    if not settings.split:
        return [("", image_id) for image_id in names]
    dealt = split_names(list(names.values()), settings.split, settings.seed)
    return [(split, image_id) for split in SPLITS for image_id, name in names.items() if dealt[name] == split]


def _named_sizes(source: CocoReader) -> Iterator[tuple[str, str, ImageSize | None]]:
    """Place, file name and size of each image."""
    for index, record in enumerate(source.images.values()):
        yield f"images[{index}]", str(record["file_name"]), image_size(record)


def _categories(source: CocoReader, wanted: Sequence[str], notes: Notes) -> dict[int, str]:
    """Names of the classes to write by id, in the order of the file."""
    names = {number: str(category["name"]) for number, category in source.categories.items()}
    found = names_among(wanted, names.values(), notes)
    if unknown := [name for name in wanted if name not in found]:
        raise UsageError(f"{source.path} has no class {', '.join(unknown)}; it has {', '.join(names.values())}")
    return {number: name for number, name in names.items() if not wanted or name in found.values()}


def _selected(image: LabelledImage, categories: Mapping[int, str], min_score: float) -> LabelledImage:
    """The image with only the labels of these classes that have at least this score, or no score at all."""
    names = set(categories.values())
    of_classes = (label for label in image.labels if label.category in names)
    return replace(
        image, labels=tuple(label for label in of_classes if label.score is None or label.score >= min_score)
    )


def _images_root(settings: ExportSettings) -> Path:
    """Folder of the images: as given, or as the run wrote it down."""
    if settings.images is not None:
        return settings.images
    manifest = RunFolder(settings.source).manifest
    try:
        return Path(json_in(manifest)["images"]["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{settings.source} doesn't say where the images are; name their folder with --images"
        ) from error


def _place_picture(root: Path, file_name: str, place: Path, pictures: Pictures) -> None:
    """Copy or link an image; an `InputError` is about the image, an `OSError` about its new place."""
    origin = file_of(root, file_name)
    if origin is None:
        raise InputError(f"no image is at {root / file_name}; name the folder of the images with --images")
    place.parent.mkdir(parents=True, exist_ok=True)
    if pictures is Pictures.LINK:
        try:
            place.symlink_to(origin.resolve())
        except OSError as error:
            # The system's error names the image, which is not what can't be written.
            raise OSError(error.errno, error.strerror, str(place)) from error
    else:
        with place.open("wb") as copy:
            copy.writelines(_chunks(origin))


def _chunks(origin: Path) -> Iterator[bytes]:
    """The bytes of an image; what goes wrong here is about reading, not about what is done with them."""
    try:
        with origin.open("rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise InputError(
            f"{origin} can't be read ({error.strerror}); check its permissions and disk, or export without images"
        ) from error
