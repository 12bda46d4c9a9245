"""Examples from a reviewed run: what was accepted is the answer, and what was rejected is a negative."""

from collections import Counter
from pathlib import Path

from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.coco.values import Notes, mask_of
from grounded_seg.errors import InputError, UsageError
from grounded_seg.images.find import root_from
from grounded_seg.records import Address, ImageSize
from grounded_seg.review.decisions_applied import check_reviewable, reviewed_images
from grounded_seg.review.decisions_made import ReviewedImage, ReviewedInstance
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.manifest import read_manifest
from grounded_seg.train.data.checks import ImageSizes, UnusableRowError, checked_box, image_beside
from grounded_seg.train.data.records import BoxExample, Fault, LabelledBox, SplitData, split_from


def read_reviewed(run: Path, sizes: ImageSizes) -> tuple[SplitData, list[str], list[str]]:
    """Images of a run on which nothing is left to decide; the labels in the run's order; and notes with the counts.

    A box is asked for as the run asked: by the prompt of its class, or by the class itself where it has several prompts
    or none. A label of which every box was rejected on an image is among the example's `rejected`.

    Raises:
        InputError: If nothing was decided, decisions are about another run, or its images aren't on this disk.
        UsageError: If it is no run.
    """
    check_reviewable(run)
    root = _root_of(run)
    with Review(run) as review:
        images = list(reviewed_images(run, review))
        settled = [image for image in images if image.is_settled(review.thresholds)]
        if not settled:
            raise InputError(
                f"{review.path} leaves something to decide on every image; decide on all instances of some images with "
                f"`grounded-seg view {run}`"
            )
        labels = _labels(review)
        sizes.read(root, (image.line["file_name"] for image in settled))
        rows = [_example(image, root, labels, sizes, review.path) for image in settled]
        notes = [*review.notes, _told(settled, rows, len(images) - len(settled))]
    return split_from(rows), list(dict.fromkeys(labels.values())), notes


def _root_of(run: Path) -> Path:
    manifest = RunFolder(run).manifest
    try:
        root = root_from(read_manifest(manifest)["images"]["root"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{manifest} doesn't say where the images are; run again with --overwrite") from error
    if isinstance(root, Address):
        raise UsageError(
            f"the images of the run are at {root}, and training reads images on this disk; copy them here, and run on "
            "the copies"
        )
    return root


def _labels(review: Review) -> dict[str, str]:
    """What each class is asked for as: its prompt where it has one only, so that no image is asked twice for it."""
    prompts: dict[str, list[str]] = {}
    for prompt, name in review.class_by_prompt.items():
        prompts.setdefault(name, []).append(prompt)
    own = {name: asked[0] if len(asked) == 1 else name for name, asked in prompts.items()}
    return own | {name: name for name in review.new_classes() if name not in own}


def _example(
    image: ReviewedImage, root: Path, labels: dict[str, str], sizes: ImageSizes, review: Path
) -> BoxExample | Fault:
    name = image.line["file_name"]
    source = f"{review} ({name})"
    try:
        path = image_beside(root, name)
        size = sizes.of(path, ImageSize(image.line["width"] or 0, image.line["height"] or 0))
        boxes = [_box(one, labels[one.class_name], size) for one in image if one.is_accepted]
    except UnusableRowError as error:
        return Fault(source, str(error))
    there = {box.label for box in boxes}
    rejected = {labels.get(one.own_class, one.own_class) for one in image if one.is_rejected}
    return BoxExample(path, size, tuple(boxes), source, rejected=frozenset(rejected - there))


def _box(one: ReviewedInstance, label: str, size: ImageSize) -> LabelledBox:
    # The detector's own: that of the mask lacks what the segmenter left out.
    x, y, width, height = one.instance["detector_bbox"]
    try:
        mask = mask_of(one.instance["segmentation"], size, "", Notes())
    except ValueError as error:
        raise UnusableRowError(f"the mask of its instance {one.key} can't be read: {error}") from error
    return LabelledBox(label, checked_box(xyxy_from_xywh((x, y, width, height)), size), mask)


def _told(settled: list[ReviewedImage], rows: list[BoxExample | Fault], n_undecided: int) -> str:
    """Count what is learnt, for the user."""
    n = Counter[str]()
    for image in settled:
        for one in image:
            n["boxes"] += one.is_accepted
            n["relabelled"] += one.is_accepted and one.class_name != one.own_class
            n["added"] += one.is_accepted and one.is_new
            n["rejected"] += one.is_rejected
    n_negatives = sum(len(row.rejected) for row in rows if isinstance(row, BoxExample))
    n_empty = sum(not row.boxes for row in rows if isinstance(row, BoxExample))
    kinds = ", ".join(f"{n[what]} {what}" for what in ("relabelled", "added") if n[what])
    return (
        f"reviewed: {n['boxes']} accepted boxes{f' ({kinds})' if kinds else ''} and {n['rejected']} rejected ones of "
        f"{len(settled)} images, {n_empty} of these without objects; {n_negatives} negatives that only rejected boxes "
        f"answered; {n_undecided} images on which something is left to decide stay out"
    )
