"""The page in a real browser: everything by keyboard and mouse, and what comes out of it in the end.

`GROUNDED_SEG_SCREENSHOTS=1 python -m pytest tests/review/page/test_in_browser.py` writes the pictures of the docs.
`GROUNDED_SEG_TEST_SCENES=300` drives the page on as many scenes of the demo.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PHONE, opened, viewed
from click.testing import CliRunner
from paths import ROOT
from view_cases import made_run, write_run

from grounded_seg.cli import main
from grounded_seg.geometry.masks import (
    coco_from_run_length,
    mask_from_run_length,
    run_length_from_coco,
    run_length_from_mask,
)
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.review.page.static_page import FOLDER
from grounded_seg.scenes import KINDS

N_SCENES, N_MANY = 24, int(os.environ.get("GROUNDED_SEG_TEST_SCENES", "100"))
SHOTS = ROOT / "docs" if os.environ.get("GROUNDED_SEG_SCREENSHOTS") else None

Keys = dict[tuple[str, int], str | None]
"""The class of each instance that was accepted, by file name and key."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("made"), N_SCENES)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def lines_of(run: Path) -> list[Any]:
    return [json.loads(text) for text in (run / "results.jsonl").read_text().splitlines()]


def class_of(one: Any) -> str:
    return str(one["attributes"]["prompt"]).removeprefix("a ")


def shot(page: Any, name: str) -> None:
    """Take a picture for the docs, if they are wanted."""
    if SHOTS is not None:
        page.wait_for_load_state("networkidle")
        page.evaluate("document.querySelector('#message').hidden = true")
        page.wait_for_timeout(300)
        page.screenshot(path=SHOTS / name, type="jpeg", quality=82)


def states(page: Any) -> list[str]:
    """The decision on each instance in the list of the image at hand."""
    return [name.split()[0] for name in page.eval_on_selector_all("#instances li", "all => all.map(e => e.className)")]


def decided(page: Any, at: int, state: str) -> None:
    """Wait until an instance of the list has a state."""
    page.wait_for_selector(f"#instances li:nth-child({at + 1}).{state}")


def open_image(page: Any, number: int) -> None:
    """Open a tile by the mouse."""
    page.locator(".tile").nth(number).click()
    page.wait_for_selector("#viewer:not([hidden])")


def is_found(page: Any, number: int, lines: list[Any]) -> None:
    """Wait until so many images are found, which are neither none nor all."""
    assert 0 < number < len(lines)
    text = f"{number} of {len(lines)} images"
    page.wait_for_function("text => document.querySelector('#found').textContent === text", arg=text)


def all_are_found(page: Any, lines: list[Any]) -> None:
    text = f"All {len(lines)} images"
    page.wait_for_function("text => document.querySelector('#found').textContent === text", arg=text)


def exported(run: Path, output: Path) -> set[tuple[str, str, tuple[float, ...]]]:
    """File name, class and box of each annotation of `export --reviewed accepted`."""
    words = ["export", run, "--to", "coco", "--reviewed", "accepted", "-o", output]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    [file] = output.rglob("*.json")
    document = json.loads(file.read_text())
    names = {one["id"]: one["file_name"] for one in document["images"]}
    classes = {one["id"]: one["name"] for one in document["categories"]}
    return {
        (names[one["image_id"]], classes[one["category_id"]], tuple(one["bbox"])) for one in document["annotations"]
    }


def test_a_run_is_decided_on_by_keyboard_and_mouse(chromium: Any, run: Path, tmp_path: Path) -> None:
    decided_on(chromium, run, tmp_path)


def decided_on(chromium: Any, run: Path, tmp_path: Path) -> None:
    """Do all that a person does, and compare what is exported with what was accepted."""
    lines = lines_of(run)
    accepted: dict[tuple[str, int], str] = {}
    with viewed(run, "--reviewer", "Ann") as address, opened(chromium, address) as page:
        all_are_found(page, lines)
        filters_are_right(page, lines)
        a_threshold_counts_live(page, lines)
        numbers = [number for number, line in enumerate(lines) if len(line["instances"]) >= 3]
        first, second = numbers[0], numbers[1]
        accepted |= by_keyboard(page, lines, first)
        accepted |= by_mouse(page, lines, second)
        nothing_is_lost_by_loading_again(page, lines, second)
    with Review(run) as review:
        assert {event.reviewer for event in review.events()} == {"Ann"}
    expected = {
        (name, label, tuple(line["instances"][key]["bbox"]))
        for line in lines
        for (name, key), label in accepted.items()
        if name == line["file_name"]
    }
    assert len(expected) == len(accepted) > 4
    assert exported(run, tmp_path / "exported") == expected


@pytest.mark.release
def test_a_run_of_the_demo_on_many_scenes(chromium: Any, tmp_path: Path) -> None:
    made_run(tmp_path / "made", N_MANY)
    classes = tmp_path / "classes.yaml"
    classes.write_text("".join(f"{kind}: {kind}\n" for kind in KINDS))
    models = ("--preset", "demo", "--device", "cpu", "--dtype", "float32", "--score-threshold", 0.1)
    words = ("run", f"@{classes}", tmp_path / "made" / "images", "-o", tmp_path / "run", "--save", "none", *models)
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    decided_on(chromium, tmp_path / "run", tmp_path)


def filters_are_right(page: Any, lines: list[Any]) -> None:
    """Each filter by mouse or keyboard, with the count that a look at the journal gives."""

    def count(fits: Any) -> int:
        return sum(any(fits(one) for one in line["instances"]) for line in lines)

    page.select_option("#f-class_name", "ball")
    is_found(page, count(lambda one: class_of(one) == "ball"), lines)
    page.fill("#f-min_score", "0.7")
    is_found(page, count(lambda one: class_of(one) == "ball" and one["score"] >= 0.7), lines)
    page.click("#reset-filters")
    page.check("#f-touches_border")
    is_found(page, count(touches_border_of(lines)), lines)
    page.click("#reset-filters")
    middle = round(
        float(np.median([one["attributes"]["mask_score"] for line in lines for one in line["instances"]])), 2
    )
    page.fill("#f-max_mask", str(middle - 0.1))
    is_found(page, count(lambda one: one["attributes"]["mask_score"] <= middle - 0.1), lines)
    page.click("#reset-filters")
    all_are_found(page, lines)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("SCENE-01")
    is_found(page, 10, lines)
    page.select_option("#f-order", "lowest")
    lowest = min(lines[10:20], key=lambda line: min((one["score"] for one in line["instances"]), default=2))
    page.wait_for_function(
        "name => document.querySelector('.tile')?.title === name && document.querySelector('.tile canvas')",
        arg=lowest["file_name"],
    )
    page.click("#reset-filters")
    all_are_found(page, lines)


def touches_border_of(lines: list[Any]) -> Any:
    """Tell which instances of the run's masks end at the border of their image."""
    sizes = {id(one): (line["width"], line["height"]) for line in lines for one in line["instances"]}

    def touches(one: Any) -> bool:
        (x, y, width, height), (wide, high) = one["bbox"], sizes[id(one)]
        return x == 0 or y == 0 or x + width == wide or y + height == high

    return touches


def a_threshold_counts_live(page: Any, lines: list[Any]) -> None:
    """The slider of a class by keys: what stays is counted while it moves, and stored when it rests."""
    lowest = min((one for line in lines for one in line["instances"]), key=lambda one: one["score"])
    name, n_steps = class_of(lowest), int(lowest["score"] * 100) + 2
    scores = [one["score"] for line in lines for one in line["instances"] if class_of(one) == name]
    slider = page.locator(f'input[type="range"][data-class-name="{name}"]')
    counted = slider.locator("xpath=ancestor::div[1]/small")
    assert counted.text_content() == f"{len(scores)} of {len(scores)} stay"
    slider.focus()
    n_left = sum(score >= n_steps / 100 for score in scores)
    assert n_left < len(scores)
    with page.expect_response(lambda answer: (answer.request.post_data or "").endswith(f'"score":{n_steps / 100:g}}}')):
        for _ in range(n_steps):
            page.keyboard.press("ArrowRight")
        assert counted.text_content() == f"{n_left} of {len(scores)} stay"
    page.reload()
    page.wait_for_selector("body.ready")
    assert float(slider.input_value()) == n_steps / 100
    # Taken away again: on a slow machine it rested between two keys, and is more than one line.
    for _ in range(n_steps):
        if slider.input_value() == "0":
            break
        with page.expect_response("**/api/undo"):
            page.click("#undo")
        page.wait_for_timeout(50)
    assert counted.text_content() == f"{len(scores)} of {len(scores)} stay"


def by_keyboard(page: Any, lines: list[Any], number: int) -> dict[tuple[str, int], str]:
    """Accept, reject, relabel, undo and go on, without the mouse."""
    name, instances = lines[number]["file_name"], lines[number]["instances"]
    page.locator(".tile").first.focus()
    for _ in range(number):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer:not([hidden])")
    assert page.locator("#image-name").text_content() == name
    page.keyboard.press("a")
    decided(page, 0, "accepted")
    page.keyboard.press("r")
    decided(page, 1, "rejected")
    page.keyboard.press("l")
    page.keyboard.type("toy lor")
    page.keyboard.type("ry")
    page.keyboard.press("Enter")
    decided(page, 2, "relabelled")
    page.keyboard.press("u")
    decided(page, 2, "undecided")
    page.keyboard.press("Control+z")
    decided(page, 1, "undecided")
    assert states(page)[:3] == ["accepted", "undecided", "undecided"]
    # The list goes by arrows.
    while "selected" not in page.locator("#instances li").nth(1).get_attribute("class"):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    decided(page, 1, "rejected")
    while "selected" not in page.locator("#instances li").nth(2).get_attribute("class"):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("l")
    page.keyboard.type("toy lorry")
    page.keyboard.press("Enter")
    decided(page, 2, "relabelled")
    shot(page, "view-image.jpg")
    made = {(name, 0): class_of(instances[0]), (name, 2): "toy lorry"}
    page.keyboard.press("Shift+A")
    page.wait_for_function("() => !document.querySelector('#instances li.undecided')")
    made |= {(name, key): class_of(instances[key]) for key in range(3, len(instances))}
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    assert "undo the last decision" in page.locator("#key-list").text_content()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        f"() => document.querySelector('#image-name').textContent === '{lines[number + 1]['file_name']}'"
    )
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"() => document.querySelector('#image-name').textContent === '{name}'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#browse:not([hidden])")
    return made


def by_mouse(page: Any, lines: list[Any], number: int) -> dict[tuple[str, int], str]:
    """The same with the mouse alone, on the image itself."""
    name, instances = lines[number]["file_name"], lines[number]["instances"]
    open_image(page, number)
    hover_shows_what_it_is(page, lines[number])
    page.locator("#instances li").nth(1).click()
    page.click("#accept")
    decided(page, 1, "accepted")
    page.locator("#instances li").nth(0).click()
    page.click("#reject")
    decided(page, 0, "rejected")
    page.click("#undo")
    decided(page, 0, "undecided")
    page.locator("#instances li").nth(0).click()
    page.click("#relabel")
    page.locator("#class-list button", has_text="toy lorry").click()
    decided(page, 0, "relabelled")
    page.locator("#instances li").nth(1).click()
    page.click("#clear")
    decided(page, 1, "undecided")
    page.locator("#instances li").nth(1).click()
    page.click("#reject")
    decided(page, 1, "rejected")
    page.click("#accept-all")
    page.wait_for_function("() => !document.querySelector('#instances li.undecided')")
    more = {(name, key): class_of(instances[key]) for key in range(2, len(instances))}
    return {(name, 0): "toy lorry"} | more


def hover_shows_what_it_is(page: Any, line: Any) -> None:
    """The pointer on a mask tells its label, score and prompt; a click selects it; wheel and drag zoom and pan."""
    one = line["instances"][0]
    rows, columns = np.nonzero(mask_of(one))
    middle = len(rows) // 2
    box = page.locator("#canvas").bounding_box()
    scale = min(box["width"] / line["width"], box["height"] / line["height"])
    left = box["x"] + (box["width"] - line["width"] * scale) / 2
    top = box["y"] + (box["height"] - line["height"] * scale) / 2
    x, y = left + (columns[middle] + 0.5) * scale, top + (rows[middle] + 0.5) * scale
    page.mouse.move(x, y)
    page.wait_for_selector("#tip:not([hidden])")
    tip = page.locator("#tip").text_content()
    at_the_place = [each for each in line["instances"] if mask_of(each)[rows[middle], columns[middle]]]
    assert any(f"prompt: {each['attributes']['prompt']}" in tip for each in at_the_place)
    assert any(f"score {each['score']:.3f}" in tip for each in at_the_place)
    page.mouse.click(x, y)
    page.wait_for_selector("#instances li.selected")
    before = pixels(page)
    page.mouse.wheel(0, -500)
    page.wait_for_timeout(100)
    zoomed = pixels(page)
    page.mouse.down()
    page.mouse.move(x + 60, y + 30)
    page.mouse.up()
    page.wait_for_timeout(100)
    panned = pixels(page)
    page.click("#zoom-fit")
    page.mouse.move(x, y)
    assert len({before, zoomed, panned}) == 3


def pixels(page: Any) -> str:
    return str(page.evaluate("document.querySelector('#canvas').toDataURL()"))


def mask_of(one: Any) -> Any:
    return mask_from_run_length(run_length_from_coco(one["segmentation"]))


def nothing_is_lost_by_loading_again(page: Any, lines: list[Any], number: int) -> None:
    before = states(page)
    page.reload()
    page.wait_for_selector("body.ready")
    assert page.locator("#image-name").text_content() == lines[number]["file_name"]
    assert states(page) == before
    page.keyboard.press("Escape")
    page.select_option("#f-decided", "accepted")
    is_found(page, 2, lines)
    page.reload()
    page.wait_for_selector("body.ready")
    is_found(page, 2, lines)
    page.click("#reset-filters")
    all_are_found(page, lines)
    page.wait_for_selector(".tile canvas")
    shot(page, "view.jpg")


def test_the_truth_in_colours_worst_first(chromium: Any, run: Path, made: Path) -> None:
    with viewed(run, "--truth", made.parent / "truth.json") as address, opened(chromium, address) as page:
        page.wait_for_selector(".badge")
        page.select_option("#f-order", "worst")
        page.wait_for_function(
            """() => {
                const texts = [...document.querySelectorAll(".badge")].map((each) => each.textContent);
                const shares = texts.map((text) => Number(text.split("F1 ")[1]));
                return shares.length > 5 && shares[0] < 0.5 && shares.every((one, at) => !at || shares[at - 1] <= one);
            }"""
        )
        # The first on which all three are to be seen; by its name, as tiles come and go where somebody scrolls.
        told = page.eval_on_selector_all(
            ".tile", "all => all.map(e => [e.title, e.querySelector('.badge')?.textContent ?? ''])"
        )
        mixed = [name for name, text in told if text and " 0 " not in f" {text.partition('F1')[0]}"]
        page.locator(f'.tile[title="{mixed[0]}"]').click()
        page.wait_for_selector("#viewer:not([hidden])")
        words = page.locator("#verdicts").text_content()
        n_wrong = page.eval_on_selector_all(
            "#instances small", "all => all.filter(e => e.textContent.endsWith('wrong')).length"
        )
        assert f"{n_wrong} wrong" in words
        assert n_wrong > 0
        page.locator("#instances li", has_text="wrong").first.click()
        shot(page, "view-truth.jpg")
        page.keyboard.press("r")
        page.wait_for_selector("#instances li.rejected")
        # What is rejected is wrong no more.
        words = page.locator("#verdicts").text_content()
        assert f" {n_wrong - 1} wrong" in words


def test_a_phone_can_do_it_too(chromium: Any, run: Path) -> None:
    with viewed(run) as address, opened(chromium, address, PHONE, has_touch=True, is_mobile=True) as page:
        for action in (None, "#open-filters", "#open-filters"):
            if action:
                page.tap(action)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        page.wait_for_selector(".tile canvas")
        shot(page, "view-phone-grid.jpg")
        page.locator(".tile").first.tap()
        page.wait_for_selector("#viewer:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        page.tap("#accept")
        decided(page, 0, "accepted")
        shot(page, "view-phone.jpg")
        page.tap("#undo")
        decided(page, 0, "undecided")
        page.tap("#next")
        page.wait_for_function("() => document.querySelector('#image-place').textContent.startsWith('2 ')")
        for button in ("#accept", "#reject", "#relabel", "#accept-all", "#back", "#next"):
            box = page.locator(button).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE[0]
            assert box["y"] + box["height"] <= PHONE[1]


def test_another_prompt_is_asked_from_the_page(chromium: Any, made: Path, tmp_path: Path) -> None:
    line = lines_of(made)[0]
    write_run(tmp_path / "run", made.parent / "images", [line | {"instances": []}])
    models = ("--preset", "demo", "--device", "cpu", "--dtype", "float32")
    with viewed(tmp_path / "run", *models) as address, opened(chromium, address) as page:
        open_image(page, 0)
        page.fill("#ask-prompt", "car")
        page.keyboard.press("Enter")
        page.wait_for_selector("#instances li.undecided", timeout=120_000)
        assert page.locator("#instances small").first.text_content().startswith("new")
        page.locator("#image-name").click()
        page.keyboard.press("a")
        decided(page, 0, "accepted")
        page.reload()
        page.wait_for_selector("body.ready")
        assert states(page)[0] == "accepted"
    assert {(name, label) for name, label, _ in exported(tmp_path / "run", tmp_path / "exported")} == {
        (line["file_name"], "car")
    }


def test_names_and_labels_are_text_and_images_may_be_gone(chromium: Any, run: Path) -> None:
    hostile = '<img src=x onerror="document.title=1">'
    lines = lines_of(run)
    lines[0]["instances"][0]["attributes"] |= {"label": hostile, "prompt": hostile}
    lines[0]["file_name"] = f"{hostile}.png".replace("/", "")
    (run / "results.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"prompts": manifest["prompts"] | {hostile: hostile}}))
    tab = chromium.new_page()
    with viewed(run) as address:
        tab.goto(address)
        tab.wait_for_selector("body.ready")
        tab.wait_for_function(
            "name => document.querySelector('.tile .name')?.textContent === name", arg=lines[0]["file_name"]
        )
        tab.wait_for_function("() => document.querySelector('.frame').textContent === \"this image can't be shown\"")
        tab.locator(".tile").first.click()
        tab.wait_for_function("() => document.querySelector('#stage-text').textContent.includes(\"can't be shown\")")
        tab.wait_for_selector("#instances li")
        assert hostile in tab.locator("#instances").text_content()
        assert tab.locator("#instances img").count() == 0
        assert tab.title() != "1"
    tab.close()


def test_the_page_of_worst_images_opens_from_the_disk(chromium: Any, run: Path, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ("eval", made.parent / "truth.json", "--predictions", run, "--images", made.parent / "images")
    result = CliRunner().invoke(main, [*map(str, words), "--plots", str(tmp_path / "plots")])
    assert result.exit_code == 0, result.output
    with opened(chromium, (tmp_path / "plots" / "worst.html").as_uri()) as page:
        assert " worst of 24 images" in page.locator("#run-name").text_content()
        page.wait_for_selector(".tile canvas")
        first = page.locator(".badge").first.text_content()
        assert first.startswith("F1 ")
        assert not page.locator("#filters").is_visible()
        open_image(page, 0)
        assert page.locator("#verdicts").text_content().startswith(f"{first}: ")
        assert not page.locator("#actions").is_visible()
        page.wait_for_function("() => document.querySelector('#instances li')")
        page.keyboard.press("a")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("() => document.querySelector('#image-place').textContent.startsWith('2 of')")


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_decoded_as_coco_means_them(chromium: Any, made: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [rng.uniform(size=(23, 31)) < share for share in (0.05, 0.5, 0.95)]
    blocks = np.kron(rng.uniform(size=(5, 6)) < 0.5, np.ones((9, 7))).astype(bool)
    masks += [blocks, np.ones((12, 9), bool), np.eye(11, dtype=bool)]
    tab = chromium.new_page()
    tab.goto("about:blank")
    tab.add_script_tag(path=FOLDER / "masks.js")
    for mask in masks:
        compressed = coco_from_run_length(run_length_from_mask(mask))
        runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=~mask[0, 0], append=~mask.T.ravel()[-1])))
        plain = {"size": list(mask.shape), "counts": [0, *runs.tolist()] if mask[0, 0] else runs.tolist()}
        for segmentation in (compressed, plain):
            seen = tab.evaluate(
                """([one, height, width]) => {
                    const { path } = GS.masks.shapeOf(one);
                    const context = document.createElement("canvas").getContext("2d");
                    const rows = [];
                    for (let y = 0; y < height; y++)
                        for (let x = 0; x < width; x++) rows.push(context.isPointInPath(path, x + 0.5, y + 0.5));
                    return rows;
                }""",
                [{"segmentation": segmentation, "bbox": [0, 0, 1, 1]}, *mask.shape],
            )
            np.testing.assert_array_equal(np.reshape(seen, mask.shape), mask)
    tab.close()
