"""Label Studio's labelling configuration: which image is shown, and which regions can be drawn on it."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from grounded_seg.errors import UsageError

_KINDS = {"RectangleLabels": "rectanglelabels", "PolygonLabels": "polygonlabels", "BrushLabels": "brushlabels"}
"""The tags that regions are made for, and the type of their regions."""


@dataclass(frozen=True)
class Control:
    """A tag that holds regions of one kind."""

    from_name: str
    to_name: str
    kind: str
    """The type of its regions, such as "brushlabels"."""
    labels: Mapping[str, str]
    """What a label is called in a result, by its name in lower case, and by its alias too."""
    names: tuple[str, ...]
    """What its labels are called, in order."""


@dataclass(frozen=True)
class LabelConfig:
    """What is needed of a configuration."""

    image_key: str
    """Where the image's address is in a task's data."""
    controls: tuple[Control, ...]
    """For that image, in their order."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of all labels, each once."""
        return tuple(dict.fromkeys(name for control in self.controls for name in control.names))

    def region_for(self, prompt: str, *, has_mask: bool) -> tuple[Control, str] | None:
        """The first tag that has a label of a prompt's name, else of the only name, with that label; None for none.

        An object without a mask goes to rectangles, if there are any.
        """
        names = self.label_names
        wanted = [_plain(prompt), *([_plain(names[0])] if len(names) == 1 else [])]
        for name in wanted:
            having = [one for one in self.controls if name in one.labels]
            having.sort(key=lambda one: not has_mask and one.kind != "rectanglelabels")
            if having:
                return having[0], having[0].labels[name]
        return None


def read_label_config(text: object) -> LabelConfig:
    """Read a configuration.

    Raises:
        UsageError: If it is no XML, or shows no image, or has no tag for regions on it.
    """
    if not isinstance(text, str) or "<!" in text.replace("<!--", ""):
        # Entities can stand for more text than there is memory for.
        raise UsageError("the label config is no XML without declarations")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  (without declarations there are no entities)
    except (ElementTree.ParseError, ValueError) as error:
        # The latter for half a character, which JSON can spell.
        raise UsageError(f"the label config is no XML ({error})") from error
    images = [one for one in root.iter("Image") if one.get("name") and (one.get("value") or "").startswith("$")]
    for image in images:
        controls = tuple(_controls(root, str(image.get("name"))))
        if controls:
            return LabelConfig(str(image.get("value"))[1:], controls)
    wanted = ", ".join(_KINDS)
    raise UsageError(f"the label config has no Image with a value such as $image and one of {wanted} for it")


def _controls(root: ElementTree.Element, image: str) -> Iterator[Control]:
    for tag in root.iter():
        name, to_names = tag.get("name"), (tag.get("toName") or "").split(",")
        if tag.tag not in _KINDS or not name or image not in to_names:
            continue
        labels: dict[str, str] = {}
        names = []
        for one in tag.iter("Label"):
            value = one.get("value")
            if value:
                shown = one.get("alias") or value
                labels.setdefault(_plain(value), shown)
                labels.setdefault(_plain(shown), shown)
                names.append(value)
        if names:
            yield Control(name, image, _KINDS[tag.tag], labels, tuple(names))


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
