"""The usual slips: each is told with what was probably meant, at most once a command, on stderr."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import Paint
from fakes import ColourDetector

from grounded_seg.cli import main
from grounded_seg.cli.slips import _WORDS_FOR, _WORDS_FOR_ARGUMENTS, check_output_files
from grounded_seg.errors import OutputError, UsageError


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GROUNDED_SEG_PRESET", raising=False)
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def grounded(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def error_of(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "option", "meant"),
    [
        ("run", "--conf", "--score-threshold"),
        ("run", "--threshold", "--score-threshold"),
        ("run", "--box-threshold", "--score-threshold"),
        ("run", "--out", "--output"),
        ("run", "--output-dir", "--output"),
        ("run", "--model", "--preset"),
        ("run", "--weights", "--detector"),
        ("run", "--sam", "--segmenter"),
        ("run", "--gpu", "--device"),
        ("run", "--fp16", "--dtype"),
        ("run", "--batch", "--batch-size"),
        ("run", "--batch_size", "--batch-size"),
        ("run", "--iou", "--iou-threshold"),
        ("run", "-t", "--score-threshold"),
        ("run", "--force", "--overwrite"),
        ("ask", "--model", "--preset"),
        ("eval", "--conf", "--score-threshold"),
        ("eval", "--image", "--images"),
        ("eval", "--text", "--prompts"),
        ("train", "--learning-rate", "--lr"),
        ("train", "--epoch", "--epochs"),
        ("export", "--format", "--to"),
    ],
)
def test_an_option_of_another_tool_suggests_ours(command: str, option: str, meant: str) -> None:
    line = error_of(grounded(command, option, "0.3", "red car", "a.png"), 2)
    assert f"No such option '{option}'." in line
    assert f"Did you mean {meant}?" in line
    assert line.endswith(f"See `grounded-seg {command} --help`.")


@pytest.mark.parametrize(
    ("command", "option", "says"),
    [
        ("run", "-i", "PATH is given without an option: grounded-seg run [OPTIONS] PROMPT PATH..."),
        ("run", "--image", "PATH is given without an option"),
        ("run", "--text", "PROMPT is given without an option"),
        ("ask", "-i", "IMAGE is given without an option"),
        ("ask", "--text", "[TEXT] is given without an option"),
        ("train", "--data", "DATASET is given without an option"),
        ("validate", "--input", "is given without an option"),
    ],
)
def test_an_option_for_what_stands_alone_shows_where_it_stands(command: str, option: str, says: str) -> None:
    assert says in error_of(grounded(command, option, "a.png", "red car"), 2)


def test_words_of_other_tools_are_told_apart() -> None:
    for table in (_WORDS_FOR, _WORDS_FOR_ARGUMENTS):
        for words in table.values():
            assert len(words.split()) == len(set(words.split()))
    # Each stands for an option or an argument that there is.
    params = [one for command in main.commands.values() for one in command.params]
    assert _WORDS_FOR.keys() <= {name for one in params for name in one.opts}
    assert _WORDS_FOR_ARGUMENTS.keys() <= {one.name for one in params}


def test_what_click_finds_by_itself_stays() -> None:
    line = error_of(grounded("run", "--score-treshold", "0.3", "red car", "a.png"), 2)
    assert "--score-threshold" in line
    assert "No such option '--xyzzy'. See" in error_of(grounded("run", "--xyzzy", "red car", "a.png"), 2)


@pytest.mark.parametrize(
    ("device", "says"),
    [("gpu", "write cuda on a machine with an NVIDIA card"), ("0", "write cuda:0;"), ("cuda0", "write cuda:0;"),
     ("0,1", "write cuda:0; run and eval take several with --devices cuda:0,cuda:1;"),
     ("toaster", "'toaster'; give auto")],
)  # fmt: skip
def test_a_device_of_another_tool_suggests_ours(paint: Paint, device: str, says: str) -> None:
    line = error_of(grounded("run", "red car", paint("a.png"), "--preset", "demo", "--device", device), 2)
    assert says in line
    assert "give auto, cpu, cuda, cuda:N or mps" in line


# --- prompt and paths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["img.png", "red car"], 'PROMPT comes before PATH: grounded-seg run "red car" img.png'),
        (["img.png", "red", "car"], 'PROMPT comes before PATH: grounded-seg run "red car" img.png'),
        (["photos", "red car"], 'PROMPT comes before PATH: grounded-seg run "red car" photos'),
        (["gone.jpg", "red car"], 'PROMPT comes before PATH: grounded-seg run "red car" gone.jpg'),
        (["img.png", "it's", "my photo.png"], "PROMPT comes before PATH"),
        (["red", "car", "img.png"], 'needs quotes: grounded-seg run "red car" img.png'),
        (["a", "red", "car", "photos"], 'needs quotes: grounded-seg run "a red car" photos'),
        (["red", "car", "gone.jpg"], 'needs quotes: grounded-seg run "red car" gone.jpg'),
        (["red car", "gone"], "no file or folder is at 'gone'; check the path"),
        (["red car", "photoz", "img.png"], "no file or folder is at 'photoz'; check the path"),
        (["red", "img.png", "car"], "no file or folder is at 'car'; check the path"),
        (["red car", "ftp://example.org//a.jpg"], "'ftp://example.org//a.jpg' is an address that isn't read"),
        (["red car", "photos/*.gif"], "no file or folder matches 'photos/*.gif'; check the pattern"),
    ],
)
def test_paths_that_are_not_there_are_told_with_the_command_that_was_meant(
    detector: ColourDetector, paint: Paint, words: list[str], says: str
) -> None:
    paint("img.png")
    paint("photos/a.png")
    assert says in error_of(grounded("run", *words), 3)
    assert not Path("grounded-seg-out").exists()


def test_a_prompt_that_was_forgotten_is_told(paint: Paint) -> None:
    paint("img.png")
    line = error_of(grounded("run", "img.png"), 2)
    assert "PROMPT is 'img.png', and PATH is missing; PROMPT comes first: grounded-seg run \"red car\" img.png" in line
    assert "Missing argument 'PATH...'" in error_of(grounded("run", "red car"), 2)


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("red car, ball", '"red car; ball"'),
        ("red car. ball.", '"red car; ball"'),
        ("red car . ball .", '"red car; ball"'),
        ("cars, trucks, and red buses", '"cars; trucks; red buses"'),
        ("img.png", 'grounded-seg run "red car" img.png img.png'),
        ("red car", None),
        ("big, red car", None),
        ("a man, wearing a hat", None),
        ("a car, red, with open doors", None),
        ("a dog, running", '"a dog; running"'),
        ("red car.", None),
        ("red car; ball, box", None),
        ("a man in a red shirt on a bicycle, who looks at the camera", None),
        ("St. Bernard", None),
        ("U.S. flag", None),
        ("1,000 dollar bill", None),
    ],
)
def test_a_prompt_is_asked_as_written_with_one_hint_at_most(
    detector: ColourDetector, paint: Paint, prompt: str, hint: str | None
) -> None:
    result = grounded("run", prompt, paint("img.png").name, "--save", "none", "--json")
    assert result.exit_code == 0
    assert list(json.loads(Path("grounded-seg-out/run.json").read_text())["prompts"]) == prompt.split("; ")
    if hint is None:
        assert result.stderr == ""
    else:
        [line] = result.stderr.splitlines()
        assert line.startswith("hint: ")
        assert hint in line
        assert grounded("run", prompt, "img.png", "--quiet", "--overwrite").stderr == ""


@pytest.mark.parametrize("prompt", ["red car; ball", "red car, ball"])
def test_a_prompt_of_a_file_that_seems_to_list_several_is_hinted_at(
    detector: ColourDetector, paint: Paint, tmp_path: Path, prompt: str
) -> None:
    (tmp_path / "classes.yaml").write_text(f"dog: dog\n{prompt}: car\n")
    result = grounded("run", "@classes.yaml", paint("img.png").name, "--save", "none", "--json")
    assert result.exit_code == 0
    assert result.stderr == (
        f"hint: {prompt!r} is asked as one prompt; if it lists several things, give each a line in classes.yaml\n"
    )


def test_a_pattern_and_the_standard_input_name_images(detector: ColourDetector, paint: Paint) -> None:
    paint("photos/a.png")
    paint("photos/b.png")
    result = grounded("run", "red car", "photos/*.png", "--save", "none", "-o", "pattern")
    assert result.exit_code == 0
    assert json.loads(Path("pattern/run.json").read_text())["paths"] == ["photos/*.png"]
    listed = CliRunner().invoke(main, ["run", "red car", "@-", "--save", "none", "-o", "list"], input="photos/b.png\n")
    assert listed.exit_code == 0, listed.stderr
    assert json.loads(Path("list/results.jsonl").read_text())["file_name"] == "b.png"


@pytest.mark.parametrize(
    "words",
    [
        ["ask", "OD", "https://example.org//a.jpg"],
        ["eval", "s3://bucket//truth.json", "--predictions", "a.json"],
        ["run", "red car", "a.png", "-o", "gs://bucket//out"],
        ["validate", "https://example.org//truth.json"],
    ],
)
def test_an_address_is_told_whole_wherever_a_path_is_wanted(words: list[str]) -> None:
    line = error_of(grounded(*words), 3)
    [address] = [word for word in words if "://" in word]
    assert f"'{address}'" in line
    assert "on this disk" in line


# --- what is printed, and when ------------------------------------------------------------------------------------


def test_boxes_only_prints_no_columns_of_masks(detector: ColourDetector, paint: Paint) -> None:
    image = paint("street.png", red=(2, 3, 12, 9))
    result = grounded("run", "red car", image, "--boxes-only", "--save", "none")
    head, row = result.stdout.splitlines()[:2]
    assert "mask" not in result.stdout.split("found in")[0]
    assert head.split() == ["image", "prompt", "label", "score", "x0", "y0", "x1", "y1"]
    assert row.split()[-5:] == ["0.67", "2", "3", "12", "9"]
    assert "mask px" in "".join(grounded("run", "red car", image, "-o", "masks").stdout.splitlines()[:2])


def test_the_demo_says_nothing_before_an_error(paint: Paint) -> None:
    error_of(grounded("run", "red car", "gone.png", "--preset", "demo"), 3)
    error_of(grounded("eval", "gone.json", "--images", ".", "--preset", "demo"), 3)
    error_of(grounded("ask", "OD", paint("a.png"), "--preset", "demo", "--device", "toaster"), 2)


def test_a_picture_for_a_data_set_or_a_list_is_called_one(paint: Paint) -> None:
    image = paint("a.png")
    for words in (["eval", image, "--predictions", image], ["export", image, "--to", "coco", "-o", "out"],
                  ["run", "red car", f"@{image}"]):  # fmt: skip
        assert "is a picture (PNG), not text" in error_of(grounded(*words), 3)


# --- commands and choices ------------------------------------------------------------------------------------------


def test_a_prompt_without_run_is_told_the_command(tmp_path: Path) -> None:
    Path("img.jpg").touch()
    told = error_of(grounded("red car", "img.jpg"), 2)
    assert """No such command 'red car'; to look for it in images: grounded-seg run "red car" img.jpg.""" in told
    assert "No such command 'red'" in error_of(grounded("red", "car"), 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "a.json", "--to", "YOLO"], "a.json"),
        (["run", "red car", "a.png", "--dtype", "Float32", "--save", "None"], "a.png"),
        (["run", "red car", "a.png", "--preset", "Demo"], "Unknown preset 'Demo'; did you mean demo? There are demo, "),
        (["run", "red car", "a.png", "--save", "masks,crops"], "repeat the option: --save masks --save crops"),
        (["export", "a.json", "--to", "yolo", "--split", "0.8/0.1/0.1"], "takes whole numbers; write 80/10/10"),
        (["train", "data", "-o", "x", "--split", "0.8/0.15/0.05"], "takes whole numbers; write 80/15/5"),
        (["train", "data", "-o", "x", "--rank", "0"], "--rank is 0, it must be at least 1"),
        (["export", "a.json", "--to", "yolo", "--min-score", "50"], "--min-score is 50, it must be between 0 and 1"),
    ],
)
def test_choices_in_another_form(arguments: list[str], told: str) -> None:
    line = error_of(grounded(*arguments), 3 if told.startswith("a.") else 2)
    assert told in line
    assert "is not one of" not in line


# --- outputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"--json": "truth.json"}, "--json truth.json would replace a file of GT.json"),
        ({"--json": "link.json"}, "--json link.json would replace a file of GT.json"),
        ({"--json": "run/annotations.json"}, "--json run/annotations.json would replace a file of --predictions"),
        ({"--json": "new.json", "--suggest": "new.json"}, "--suggest new.json would replace a file of --json"),
        ({"--json": "run/run.json"}, "--json run/run.json would replace a file of --predictions"),
        ({"--json": "run"}, "--json run would replace a file of --predictions"),
        ({"--suggest": "other"}, "--suggest other is a folder; name a file"),
    ],
)
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, outputs: dict[str, str], says: str) -> None:
    (tmp_path / "truth.json").touch()
    (tmp_path / "link.json").symlink_to("truth.json")
    for folder in ("run", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "run" / "eval.json").touch()
    inputs = {"GT.json": Path("truth.json"), "--predictions": Path("run"), "--prompts": None}
    with pytest.raises(UsageError, match=says):
        check_output_files({name: Path(one) for name, one in outputs.items()}, inputs)
    # What isn't a run's may be there already, as where an evaluation is resumed.
    check_output_files({"--json": Path("run/eval.json")}, inputs)


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/new.json can't be written in .*file; get permission there"):
        check_output_files({"--json": Path("file/new.json")}, {})
    # The superuser may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=r"name another file with --json"):
        check_output_files({"--json": Path("there/new.json")}, {})
    monkeypatch.undo()
    check_output_files({"--json": tmp_path / "there" / "new.json", "--suggest": None}, {})
    assert not (tmp_path / "there").exists()


def test_eval_and_calibrate_leave_their_inputs_as_they_were(tmp_path: Path) -> None:
    for name in ("truth.json", "eval.json"):
        (tmp_path / name).write_text("precious")
    line = error_of(grounded("eval", "truth.json", "--predictions", "truth.json", "--json", "truth.json"), 2)
    assert "--json truth.json would replace a file of GT.json; name another file" in line
    line = error_of(grounded("calibrate", "eval.json", "-o", "eval.json"), 2)
    assert "-o eval.json would replace a file of EVAL.json; name another file" in line
    assert {(tmp_path / name).read_text() for name in ("truth.json", "eval.json")} == {"precious"}
