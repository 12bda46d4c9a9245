"""`grounded-seg export`: a run's labels in the form of another tool."""

from pathlib import Path
from typing import Any

import click

from grounded_seg.cli.messages import set_up_messages
from grounded_seg.cli.options import EnumChoice
from grounded_seg.errors import UsageError
from grounded_seg.export.settings import ExportSettings, LabelFormat, MaskForm, Pictures


@click.command()
@click.argument("source", metavar="RUN|FILE.json", type=click.Path(path_type=Path))
@click.option("--to", "format", type=EnumChoice(LabelFormat), required=True, help="The format to write.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("grounded-seg-export"),
    show_default=True,
    help="Folder for the files; it has to be empty or new.",
)
@click.option(
    "--seg",
    "form",
    type=EnumChoice(MaskForm),
    help="How masks are written: rle is exact, both gives two files, none boxes only. The default is rle, for "
    "yolo polygon, for voc none.",
)
@click.option(
    "--tolerance",
    "tolerance_px",
    type=float,
    default=ExportSettings.tolerance_px,
    show_default=True,
    help="How far a simplified polygon may stray, in pixels; 0 keeps every corner.",
)
@click.option(
    "--min-score",
    type=float,
    default=ExportSettings.min_score,
    show_default=True,
    help="Leave out labels below this score.",
)
@click.option("--classes", metavar="A;B", default="", help="Only these classes, separated by semicolons.")
@click.option("--split", metavar="80/10/10", default="", help="Shares of train, valid and test, or of train and valid.")
@click.option("--seed", type=int, default=ExportSettings.seed, show_default=True, help="Of the split.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="The folder that the images' names are relative to; a run knows its own.",
)
@click.option("--copy-images", "pictures", flag_value=Pictures.COPY.value, help="Copy the images beside the labels.")
@click.option("--link-images", "pictures", flag_value=Pictures.LINK.value, help="Link to the images instead.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def export(pictures: str | None, debug: bool, **options: Any) -> int:
    """Write the labels of a run or of any COCO file for another tool.

    What a format has no room for is counted and said.

    Exit code: 0 done, 1 the files can't be written, 2 usage, 3 unreadable input, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # This imports numpy and OpenCV, which would slow --help down.
    from grounded_seg.export.export import export_labels

    options["classes"] = tuple(name.strip() for name in options["classes"].split(";") if name.strip())
    options["split"] = _shares_from(options["split"])
    report = export_labels(ExportSettings(**options, pictures=Pictures(pictures or Pictures.NONE)))
    splits = [f"{n} {split}" for split, n in report.images_by_split.items() if split]
    images = f"{report.n_images} images ({', '.join(splits)})" if splits else f"{report.n_images} images"
    left_out = f", {report.n_left_out} left out" if report.n_left_out else ""
    click.echo(f"{report.n_labels} labels of {images}{left_out}: {options['output']}")
    losses = report.losses
    if losses.n_masks:
        worst = f", in {losses.least_file_name}" if losses.least_file_name else ""
        click.echo(
            f"{losses.n_masks} masks as polygons: IoU with the mask {losses.iou_mean:.4f} on average, "
            f"{losses.iou_least:.4f} at least{worst}"
        )
    for what, n in sorted(losses.counts.items()):
        click.echo(f"{options['format']}: {n} {what}")
    return 0


def _shares_from(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(share) for share in text.split("/")) if text else ()
    except ValueError as error:
        raise UsageError(f"split is {text!r}; it has to be whole numbers as in 80/10/10") from error
