"""`grounded-seg export`: labels of a run or a COCO file in another tool's format."""

from pathlib import Path
from typing import Any

import click

from grounded_seg.cli.messages import counted, note, set_up_messages, show
from grounded_seg.cli.options import PATH, debug_option, option_of, problems_as_options, quiet_option, refuse_fractions
from grounded_seg.export.settings import ExportSettings, Pictures


@click.command()
@click.argument("source", metavar="RUN|FILE.json", type=PATH)
@option_of(ExportSettings, "format", "Format to write.", "--to", required=True)
@option_of(
    ExportSettings,
    "output",
    "Folder for the files; it must be new or empty.",
    "-o",
    "--output",
    default=Path("grounded-seg-export"),
)
@option_of(
    ExportSettings,
    "form",
    "Form of the masks: rle is exact, polygon is an outline, both writes two files, none writes boxes only. The "
    "default is rle; for yolo it is polygon, for voc none.",
    "--seg",
)
@option_of(
    ExportSettings,
    "tolerance_px",
    "Simplify polygons, but move no edge by more than this many pixels; 0 keeps every corner.",
    "--tolerance",
)
@option_of(ExportSettings, "min_score", "Leave out labels below this score.")
@click.option("--classes", metavar="A;B", default="", help="Export only these classes, separated by semicolons.")
@option_of(
    ExportSettings,
    "reviewed",
    "Export what people decided on in `view`: accepted instances, those not rejected, or those undecided.",
)
@click.option(
    "--split",
    metavar="80/10/10",
    default="",
    help="Split the images into train, valid and test by these shares, or into train and valid by two shares.",
)
@option_of(ExportSettings, "seed", "Random seed of the split.")
@option_of(
    ExportSettings, "images", "Folder that the image names in a COCO file are relative to; a run records its own."
)
@click.option("--copy-images", "pictures", flag_value=Pictures.COPY.value, help="Copy the images beside the labels.")
@click.option(
    "--link-images", "pictures", flag_value=Pictures.LINK.value, help="Write links to the images beside the labels."
)
@quiet_option
@debug_option
def export(pictures: str | None, quiet: bool, debug: bool, **options: Any) -> int:
    """Write the labels of a run or of any COCO file in another tool's format.

    What the format can't hold is counted and printed.

    Exit code: 0 done, 1 the files can't be written, 2 usage, 3 unreadable input, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # These import numpy, OpenCV and rich, which would slow --help down.
    from grounded_seg.cli.progress import WorkDisplay
    from grounded_seg.export.export import export_labels

    options["classes"] = tuple(name.strip() for name in options["classes"].split(";") if name.strip())
    refuse_fractions(options["split"])
    options["split"] = _shares_from(options["split"])
    with problems_as_options():
        settings = ExportSettings(**options, pictures=Pictures(pictures or Pictures.NONE))
    with WorkDisplay(quiet=quiet) as display:
        report = export_labels(settings, display.of("images"))
    for line in (*(report.review.lines() if report.review else ()), *report.notes):
        note(line)
    splits = [f"{n} {split}" for split, n in report.images_by_split.items() if split]
    images = counted(report.n_images, "image") + (f" ({', '.join(splits)})" if splits else "")
    left_out = f", {report.n_left_out} left out" if report.n_left_out else ""
    show(f"{counted(report.n_labels, 'label')} of {images}{left_out}: {options['output']}")
    losses = report.losses
    if losses.n_masks:
        worst = f", in {losses.least_file_name}" if losses.least_file_name else ""
        masks = "1 mask as a polygon" if losses.n_masks == 1 else f"{losses.n_masks} masks as polygons"
        show(f"{masks}: IoU with the mask {losses.iou_mean:.4f} on average, {losses.iou_least:.4f} at least{worst}")
    for what, n in sorted(losses.counts.items()):
        show(f"{options['format']}: {n} {what}")
    return 0


def _shares_from(text: str) -> tuple[int | str, ...]:
    """Read the shares of a split; what is no number stays, for the settings to refuse it together with the rest."""
    return tuple(int(share) if share.strip().isdecimal() else share for share in text.split("/") if text)
