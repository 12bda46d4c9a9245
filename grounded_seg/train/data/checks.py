"""What makes a row of a data set unusable: images that can't be read or are of another size, boxes that can't be."""

from pathlib import Path

from grounded_seg.errors import ImageError
from grounded_seg.images.read import read_image
from grounded_seg.records import BoxXyxy, ImageSize

_SLACK = 0.01
"""Share of a side that a box may stick out of the image, and is then cut: tools round, and draw up to the border."""


class UnusableRowError(ValueError):
    """A row can't be learnt from; the message says why and what to do."""


class UnusableImageError(UnusableRowError):
    """Nor can any other row about the boxes of its image: they would deny what this one lists."""

    def __init__(self, what: str, image: Path) -> None:
        """Keep what is wrong, and the image."""
        super().__init__(what)
        self.image = image


def image_beside(folder: Path, file_name: str) -> Path:
    """Find an image beside its annotations, or in `images` there.

    Raises:
        UnusableRowError: If it is in neither place.
    """
    for path in (folder / file_name, folder / "images" / file_name):
        if path.is_file():
            return path
    raise UnusableRowError(f"the image {file_name!r} isn't there; put it beside the annotations or take the row out")


def checked_size(path: Path, stated: ImageSize | None = None) -> ImageSize:
    """Decode an image to the end, as training will, and give its upright size.

    Args:
        path: The image.
        stated: Width and height as the data set has them, where it does: boxes of another size would be wrong ones.

    Raises:
        UnusableRowError: If it can't be read, or isn't of that size.
    """
    try:
        size = read_image(path).size
    except ImageError as error:
        raise UnusableRowError(str(error)) from error
    if stated is not None and stated != size:
        raise UnusableRowError(
            f"the image {path.name!r} is {stated.width} x {stated.height} px there, but upright it is {size.width} x "
            f"{size.height} px; export the data set again"
        )
    return size


def checked_box(box_xyxy: BoxXyxy, size: ImageSize) -> BoxXyxy:
    """Cut a box at the image's border.

    Args:
        box_xyxy: Pixels of the upright image, finite.
        size: The upright image.

    Raises:
        UnusableRowError: If its corners are in the wrong order, it has no area, or it lies outside of the image by
            more than a hundredth of the side.
    """
    x0, y0, x1, y1 = box_xyxy
    shown = ", ".join(f"{edge:g}" for edge in box_xyxy)
    if x1 <= x0 or y1 <= y0:
        raise UnusableRowError(f"the box {shown} (x0, y0, x1, y1) has no area; correct it or take it out")
    reach = max(-x0 / size.width, -y0 / size.height, x1 / size.width - 1, y1 / size.height - 1)
    if reach > _SLACK:
        raise UnusableRowError(
            f"the box {shown} (x0, y0, x1, y1) reaches out of the image of {size.width} x {size.height} px; correct it"
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(size.width)), min(y1, float(size.height))
