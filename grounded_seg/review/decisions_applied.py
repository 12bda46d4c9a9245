"""A run as its reviewers left it: a COCO file of the instances that they accepted, rejected not, or have yet to see."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from grounded_seg.coco.schema import CocoAnnotation, CocoImage
from grounded_seg.coco.write import Record, write_records
from grounded_seg.errors import UsageError
from grounded_seg.files import as_output_error
from grounded_seg.review.decisions_made import ReviewedImage, ReviewedInstance
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.journal import read_lines
from grounded_seg.runs.manifest import read_manifest, refuse_evaluation
from grounded_seg.settings import Reviewed

_INSTEAD = "another disk in TMPDIR"


@dataclass
class ReviewCounts:
    """What is there of a run's images and instances, and what isn't."""

    which: Reviewed
    notes: tuple[str, ...] = ()
    """What was read in spite of its form, a line each."""
    n_images: int = 0
    n_images_left_out: int = 0
    n_instances: int = 0
    n_relabelled: int = 0
    """Of the instances, as are those that were added."""
    n_added: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Instances of images that are there or not, by why: accepted, rejected, undecided, below a threshold."""
    n_unsettled: int = 0
    """Images that are there without some of their undecided instances."""

    def keeps(self, one: ReviewedInstance, thresholds: Mapping[str, float]) -> bool:
        """Tell whether an instance is there, and count it."""
        below = one.is_below(thresholds)
        wanted = {
            Reviewed.ACCEPTED: one.is_accepted,
            Reviewed.NOT_REJECTED: not one.is_rejected and not below,
            Reviewed.UNDECIDED: one.decision is None and not below,
        }
        if wanted[self.which]:
            self.n_instances += 1
            self.n_relabelled += one.class_name != one.own_class
            self.n_added += one.is_new
            return True
        state = "undecided" if one.decision is None else "accepted" if one.is_accepted else "rejected"
        self.left_out["below a threshold" if below else state] += 1
        return False

    def keeps_image(self, image: ReviewedImage, n_instances: int, thresholds: Mapping[str, float]) -> bool:
        """Tell whether an image of which so many instances are there is there itself, and count it."""
        is_settled = image.is_settled(thresholds)
        wanted = {
            Reviewed.ACCEPTED: is_settled or n_instances > 0,
            Reviewed.NOT_REJECTED: True,
            Reviewed.UNDECIDED: not is_settled,
        }
        if not wanted[self.which]:
            self.n_images_left_out += 1
            return False
        self.n_images += 1
        self.n_unsettled += self.which is Reviewed.ACCEPTED and not is_settled
        return True

    @property
    def remedy(self) -> str:
        """What to do where no image is left."""
        if self.which is Reviewed.UNDECIDED:
            return "every image is settled: take --reviewed accepted"
        return "decide on some with `grounded-seg view`"

    def lines(self) -> Iterator[str]:
        """Tell it in words, a line each, after the notes."""
        yield from self.notes
        kinds = ((self.n_relabelled, "relabelled"), (self.n_added, "added"))
        told = ", ".join(f"{n} {what}" for n, what in kinds if n)
        what = f"{_counted(self.n_instances, 'instance')} in {_counted(self.n_images, 'image')}"
        yield f"reviewed ({self.which}): {what}" + (f"; {told}" if told else "")
        if self.left_out:
            yield f"left out: instances {', '.join(f'{why} {n}' for why, n in sorted(self.left_out.items()))}"
        if self.n_images_left_out:
            which = "settled" if self.which is Reviewed.UNDECIDED else "undecided"
            yield f"left out: {which} {_counted(self.n_images_left_out, 'image')}"
        if self.n_unsettled:
            yield (
                f"{_counted(self.n_unsettled, 'image')} with accepted instances also had undecided ones, which look "
                "like background now; decide on them first where that matters"
            )


def check_reviewable(run: Path) -> None:
    """Refuse what isn't the folder of a run.

    Raises:
        UsageError: If it is a file, or the folder of an `eval`.
        InputError: If it isn't there, or its manifest is damaged.
    """
    if not run.is_dir():
        what = f"{run} is no folder" if run.exists() else f"no run is at {run}"
        raise UsageError(f"{what}; decisions are kept in the folder of a run: name that")
    refuse_evaluation(read_manifest(RunFolder(run).manifest), run)


def reviewed_images(run: Path, review: Review) -> Iterator[ReviewedImage]:
    """Go through the images of a run that were done, with what was decided about them; it may be unfinished.

    Raises:
        InputError: If decisions are about images or instances that the run lacks, or its journal is damaged.
    """
    undecided_on = set(review.images)
    for line in read_lines(RunFolder(run).journal, is_written=True):
        if line["status"] != "skipped":
            undecided_on.discard(line["file_name"])
            yield review.of(line)
    review.refuse_images(undecided_on)


@contextmanager
def reviewed_file(run: Path, which: Reviewed) -> Iterator[tuple[Path, ReviewCounts]]:
    """COCO file of a reviewed run, for the length of a block, and its counts.

    Images and annotations have the ids that they have in the run's own file; what was added follows.
    """
    with _temporary_folder() as folder:
        path = folder / RunFolder(run).annotations.name
        with Review(run) as review:
            counts = ReviewCounts(which, notes=review.notes)
            classes = dict.fromkeys((*review.class_by_prompt.values(), *review.new_classes()))
            with as_output_error(path, _INSTEAD):
                write_records(_records(run, review, list(classes), counts), list(classes), path)
        yield path, counts


def _records(run: Path, review: Review, classes: list[str], counts: ReviewCounts) -> Iterator[Record]:
    ids = {name: number for number, name in enumerate(classes, start=1)}
    n_own, image_id = 0, 0
    added = count(1 + _n_instances(run)) if review.has_added() else count()
    for image in reviewed_images(run, review):
        image_id += 1
        annotations: list[CocoAnnotation] = []
        for one in image:
            n_own += not one.is_new
            annotation_id = next(added) if one.is_new else n_own
            if counts.keeps(one, review.thresholds):
                category_id = ids[one.class_name]
                annotations.append(
                    {"id": annotation_id, "image_id": image_id, "category_id": category_id, **one.instance}
                )
        width, height = image.line["width"], image.line["height"]
        if width is None or height is None or not counts.keeps_image(image, len(annotations), review.thresholds):
            continue
        found: CocoImage = {"id": image_id, "file_name": image.line["file_name"], "width": width, "height": height}
        yield image.line, found, annotations


def _n_instances(run: Path) -> int:
    return sum(len(line["instances"]) for line in read_lines(RunFolder(run).journal, is_written=True))


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with as_output_error("the folder of temporary files", _INSTEAD):
        folder = TemporaryDirectory(prefix="grounded-seg-")
    with folder as path:
        yield Path(path)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
