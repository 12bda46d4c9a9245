"""Label Studio's configuration: the image, the tags for regions, and the label that a prompt goes to."""

import pytest

from grounded_seg.errors import UsageError
from grounded_seg.serve.label_config import read_label_config


def config(tags: str) -> str:
    return f'<View><Image name="image" value="$image"/>{tags}</View>'


BOTH = config(
    '<RectangleLabels name="box" toName="image"><Label value="Car"/><Label value="Red  Ball" alias="ball"/>'
    '</RectangleLabels><BrushLabels name="brush" toName="image"><Label value="car"/><Label value="Dog"/></BrushLabels>'
)


def test_names_and_labels_are_read() -> None:
    found = read_label_config(BOTH)
    assert found.image_key == "image"
    assert [(one.from_name, one.to_name, one.kind) for one in found.controls] == [
        ("box", "image", "rectanglelabels"),
        ("brush", "image", "brushlabels"),
    ]
    assert found.label_names == ("Car", "Red  Ball", "car", "Dog")


def test_a_prompt_goes_to_the_first_tag_with_a_label_of_its_name() -> None:
    found = read_label_config(BOTH)
    places = {
        prompt: (place[0].from_name, place[1]) if (place := found.region_for(prompt, has_mask=True)) else None
        for prompt in ("car", "CAR", "red ball", "ball", "dog", "cat")
    }
    assert places == {
        "car": ("box", "Car"),
        "CAR": ("box", "Car"),
        "red ball": ("box", "ball"),
        "ball": ("box", "ball"),
        "dog": ("brush", "Dog"),
        "cat": None,
    }


def test_any_prompt_goes_to_the_only_label() -> None:
    tags = (
        '<BrushLabels name="b" toName="image"><Label value="Car"/></BrushLabels>'
        '<RectangleLabels name="r" toName="image"><Label value="Car"/></RectangleLabels>'
    )
    found = read_label_config(config(tags))
    place = found.region_for("anything", has_mask=True)
    assert place is not None
    assert (place[0].from_name, place[1]) == ("b", "Car")
    # A box without a mask is a rectangle, where there is a tag for it.
    place = found.region_for("anything", has_mask=False)
    assert place is not None
    assert place[0].from_name == "r"


def test_tags_of_another_image_and_other_kinds_are_passed_over() -> None:
    text = (
        '<View style="display: flex"><Header value="Cars"/><Image name="other" value="$thumbnail"/>'
        '<View><Image name="main" value="$picture"/></View><TextArea name="prompt" toName="main"/>'
        '<KeyPointLabels name="k" toName="main"><Label value="Car"/></KeyPointLabels>'
        '<PolygonLabels name="p" toName="main"><View><Label value="Car"/></View></PolygonLabels>'
        '<PolygonLabels name="empty" toName="main"/></View>'
    )
    found = read_label_config(text)
    assert found.image_key == "picture"
    assert [one.from_name for one in found.controls] == ["p"]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "text",
    [
        None,
        3,
        "",
        "<View>",
        "no XML",
        "<View>\ud800</View>",
        BOMB + config("&b;"),
        '<View><Text name="t" value="$text"/></View>',
        config(""),
        config('<Choices name="c" toName="image"><Choice value="a"/></Choices>'),
        '<View><Image name="image" value="image.png"/>'
        '<BrushLabels name="b" toName="image"><Label value="Car"/></BrushLabels></View>',
    ],
)
def test_a_configuration_that_can_not_be_used_is_one_error(text: object) -> None:
    with pytest.raises(UsageError, match="label config"):
        read_label_config(text)
