"""The command line: what goes to stdout, to stderr and into the exit code."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from conftest import Paint
from fakes import ColourDetector, found_models
from paths import ROOT

import grounded_seg
from grounded_seg.cli import exit_codes, main
from grounded_seg.cli.exit_codes import CLOSED_OUTPUT, INTERRUPTED, UNEXPECTED
from grounded_seg.cli.run_display import RunDisplay
from grounded_seg.detect.prompts import prompts_from
from grounded_seg.errors import DeviceError, UsageError, WeightsError
from grounded_seg.pipeline.chain import Chain
from grounded_seg.runs.manifest import Counts
from grounded_seg.runs.run import run_images
from grounded_seg.settings import MAX_PIXELS, ModelSettings, RunSettings
from grounded_seg.weights.sources import LocalSource, ModelSources


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start every command in an empty folder, and undo what it sets for its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GROUNDED_SEG_PRESET", raising=False)
    for name in [name for name in os.environ if name.startswith(("TRANSFORMERS_", "HF_", "TOKENIZERS_"))]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    with warnings.catch_warnings():
        yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def grounded(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def error_of(result: Result) -> str:
    """The one line on stderr."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_one_image_prints_a_table_and_the_paths(detector: ColourDetector, paint: Paint) -> None:
    result = grounded("run", "red car", paint("street.png", red=(2, 3, 12, 9)), "-o", "out")
    assert result.exit_code == 0
    assert result.stderr == ""
    [row] = [line for line in result.stdout.splitlines() if "street.png" in line]
    assert re.split("  +", row.strip()) == ["street.png", "red car", "red thing", "0.67", "2 3 12 9", "32", "0.75"]
    summary, *written = result.stdout.splitlines()[-5:]
    assert re.fullmatch(r"1 found in 1 image, \d+\.\d s", summary)
    assert written == ["out/annotations.json", "out/results.jsonl", "out/run.json", "out/overlays"]
    assert all(Path(path).exists() for path in written)


def test_json_gives_the_journals_lines(detector: ColourDetector, paint: Paint) -> None:
    paint("photos/a.png", red=(2, 3, 12, 9))
    paint("photos/b.png")
    result = grounded("run", "red car", "photos", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == Path("grounded-seg-out/results.jsonl").read_text()
    assert [len(json.loads(line)["instances"]) for line in result.stdout.splitlines()] == [1, 0]


def test_what_is_absent_is_a_good_answer(detector: ColourDetector, paint: Paint) -> None:
    result = grounded("run", "green car", paint("a.png", red=(2, 3, 12, 9)))
    assert result.exit_code == 0
    assert "nothing found" in result.stdout
    assert json.loads(Path("grounded-seg-out/annotations.json").read_text())["annotations"] == []


def test_a_skipped_image_is_told_in_table_error_and_code(detector: ColourDetector, paint: Paint) -> None:
    paint("photos/a.png")
    Path("photos/b.png").write_bytes(b"")
    result = grounded("run", "red car", "photos")
    assert result.exit_code == 1
    assert "skipped" in result.stdout
    assert "1 of 2 images" in error_of(result)
    assert "results.jsonl" in error_of(result)


def test_a_long_run_prints_a_short_table(detector: ColourDetector, paint: Paint) -> None:
    for number in range(53):
        paint(f"photos/{number:02}.png")
    result = grounded("run", "red car", "photos", "--save", "none")
    assert sum("nothing found" in line for line in result.stdout.splitlines()) == 50
    assert "3 more" in result.stdout


def test_a_terminal_shows_progress_on_stderr_only(
    monkeypatch: pytest.MonkeyPatch, detector: ColourDetector, paint: Paint, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with RunDisplay(json_lines=True) as display:
        display.fetching(5_000_000, 10_000_000)
        display.started(4, Counts(n_done=1, n_skipped=2, n_instances=5))
        display._progress.refresh()
        run_images(prompts_from(["red car"]), [paint("a.png")], RunSettings(Path("out")), display)
    out, err = capsys.readouterr()
    assert "images" in err
    # Those of an earlier run are counted as well.
    assert "5 found, 2 skipped" in err
    assert "1/1" in err
    assert "0 found, 0 skipped" in err
    assert out == Path("out/results.jsonl").read_text()


def test_a_path_that_is_no_utf8_is_written_out(detector: ColourDetector, paint: Paint) -> None:
    result = grounded("run", "red car", paint("a.png"), "-o", "out\udcff")
    assert result.exit_code == 0, result.stderr
    assert r"out\udcff/annotations.json" in result.stdout


def test_a_table_whose_reader_is_gone_ends_as_other_programs_do() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "grounded_seg.cli", "models", "list"]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [["models", "list"], ["--help"]])
def test_output_that_a_full_disk_does_not_take_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command_line(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: standard output can't be written (No space left on device); ")


def test_names_are_shown_as_they_are(detector: ColourDetector, paint: Paint) -> None:
    result = grounded("run", "red car", paint("photos/[red]a\nb ü.png").parent)
    assert result.exit_code == 0
    assert r"[red]a\nb ü.png" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run"], 2, "Missing argument 'PROMPT'"),
        (["run", "red car"], 2, "Missing argument 'PATH...'"),
        (["run", " ; ", "a.png"], 2, "prompt is empty"),
        (["run", "@missing.yaml", "a.png"], 2, "missing.yaml"),
        (["run", "red car", "a.png", "--nonsense"], 2, "--nonsense"),
        (["run", "red car", "a.png", "--task", "guess"], 2, "'guess' is not one of 'grounding'"),
        (["run", "red car", "a.png", "--preset", "huge"], 2, "demo"),
        (["run", "red car", "a.png", "--score-threshold", "2", "--beams", "0"], 2, "--score-threshold is 2"),
        (["run", "red car", "a.png", "--batch-size", "0"], 2, "batch-size"),
        (["run", "red car", "a.png", "--overlap", "7"], 2, "overlap is 7"),
        (["run", "red car", "a.png", "--save", "none", "--save", "crops"], 2, "--save none"),
        (["run", "red car", "a.png", "--save", "masks", "--boxes-only"], 2, "--boxes-only"),
        (["run", "red car", "a.png", "-o", "a.png"], 2, "a.png is a file"),
        (["run", "red car", "a.png", "-o", "x" * 300], 1, "can't be written (File name too long)"),
        (["run", "red car", "a.png", "-o", "a.png/out"], 1, "can't be written (Not a directory)"),
        (["run", "red car", "a.png", "-o", "used"], 2, "--overwrite"),
        (["nonsense"], 2, "nonsense"),
        (["--nonsense"], 2, "--nonsense"),
        (["run", "red car", "missing.png"], 3, "missing.png"),
        (["run", "red car", "empty"], 3, "jpg jpeg png webp bmp tif tiff gif"),
        (["run", "red car", "broken.png"], 3, "broken.png"),
        (["run", "red car", "folder", "--on-error", "stop"], 3, "broken.png"),
        (["run", "red car", "a.png", "--segmenter", "missing.pth"], 4, "missing.pth"),
    ],
)
def test_an_expected_error_is_one_line_and_a_code(
    detector: ColourDetector, paint: Paint, arguments: list[str], code: int, says: str
) -> None:
    paint("a.png")
    Path("used").mkdir()
    Path("used/results.jsonl").touch()
    Path("empty").mkdir()
    Path("folder").mkdir()
    for path in (Path("broken.png"), Path("folder/broken.png")):
        path.write_bytes(b"\x89PNG broken")
    result = grounded(*arguments)
    assert result.exit_code == code
    assert says in error_of(result)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (WeightsError("weights are missing"), 4, "error: weights are missing"),
        (DeviceError("no such device"), 5, "error: no such device"),
        (KeyboardInterrupt(), INTERRUPTED, "error: interrupted; no image was finished"),
        (MemoryError(), 5, "error: memory is full; end other programs"),
        (ImportError("x.so: failed to map segment from shared object"), 5, "error: memory is full; end other programs"),
        (RuntimeError("std::bad_alloc"), 5, "error: memory is full; end other programs"),
        (ZeroDivisionError("a\nb"), UNEXPECTED, "error: unexpected ZeroDivisionError: a b; please report"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_what_the_models_raise_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, paint: Paint, raised: BaseException, code: int, says: str, debug: bool
) -> None:
    def fail(*arguments: object, **options: object) -> Chain:
        raise raised

    monkeypatch.setattr("grounded_seg.runs.run.find_models", found_models)
    monkeypatch.setattr("grounded_seg.runs.run.load_chain", fail)
    result = grounded("run", "red car", paint("a.png"), *(["--debug"] if debug else []))
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1].startswith(says)
    assert ("Traceback" in result.stderr) == debug
    assert not Path("grounded-seg-out").exists()


def test_the_demo_says_what_it_knows(monkeypatch: pytest.MonkeyPatch, detector: ColourDetector, paint: Paint) -> None:
    def resolve(models: ModelSettings, *, boxes_only: bool) -> ModelSources:
        return ModelSources(here, None, here, is_demo=models.preset == "demo")

    here = LocalSource(Path(), "here")
    monkeypatch.setattr("grounded_seg.weights.sources.resolve", resolve)
    for output in ("--json", "--overwrite"):
        result = grounded("run", "red car", paint("a.png"), "--preset", "demo", output, "-o", f"out{output}")
        [line] = result.stderr.splitlines()
        assert line.startswith("note: ")
        assert all(word in line for word in ("demo", "rendered scenes only", "base-ft", "large-ft"))


def test_the_environment_names_the_preset(monkeypatch: pytest.MonkeyPatch, paint: Paint) -> None:
    monkeypatch.setenv("GROUNDED_SEG_PRESET", "huge")
    assert "huge" in error_of(grounded("run", "red car", paint("a.png")))


def test_options_reach_the_settings(detector: ColourDetector, paint: Paint) -> None:
    options = (
        "--preset large --adapter none --device cpu --dtype float32 --offline --allow-base-mismatch "
        "--task referring --score-threshold 0.5 --nms agnostic --iou-threshold 0.6 "
        "--box-containment-threshold 0.9 --max-detections 7 --beams 3 "
        "--multimask --clean --min-area 9 --outside-share 0.1 --mask-iou-threshold 0.7 --containment-threshold 0.8 "
        "--tile 900 --overlap 0.3 "
        "--boxes-only --batch-size 2 --max-pixels 5000 --no-recursive --on-error stop --save crops "
        "--shard 1/1 --results parquet"
    )
    assert grounded("run", "red car", paint("a.png"), *options.split()).exit_code == 0
    settings = json.loads(Path("grounded-seg-out/run.json").read_text())["settings"]
    assert settings == {
        "output": "grounded-seg-out",
        "models": {
            "preset": "large", "detector": None, "adapter": "none", "segmenter": None, "device": "cpu",
            "dtype": "float32", "offline": True, "allow_base_mismatch": True, "calibration": None,
        },
        "detect": {
            "task": "referring", "score_threshold": 0.5, "nms": "agnostic", "iou_threshold": 0.6,
            "box_containment_threshold": 0.9, "max_detections": 7,
            "beams": 3, "compile": False,
        },
        "segment": {
            "multimask": True, "clean": True, "min_area": 9, "outside_share": 0.1, "mask_iou_threshold": 0.7,
            "containment_threshold": 0.8, "compile": False,
        },
        "tiles": {"side": 900, "overlap": 0.3},
        "boxes_only": True,
        "batch_size": 2,
        "recursive": False,
        "max_pixels": 5000,
        "resume": False,
        "overwrite": False,
        "on_error": "stop",
        "save": ["crops"],
        "shard": "1/1",
        "results": "parquet",
        "devices": None, "engine": "local", "workers": None, "upload": None,
    }  # fmt: skip


def test_tiles_may_fit_the_detector(monkeypatch: pytest.MonkeyPatch, detector: ColourDetector, paint: Paint) -> None:
    monkeypatch.setattr(type(detector), "view_px", 1000, raising=False)
    assert grounded("run", "red car", paint("a.png"), "--tile", "Auto").exit_code == 0
    settings = json.loads(Path("grounded-seg-out/run.json").read_text())["settings"]
    assert settings["tiles"] == {"side": "auto", "overlap": 0.2}
    refused = grounded("run", "red car", "a.png", "--tile", "large")
    assert refused.exit_code == 2
    assert "'large' is no side of a tile; give pixels, or auto" in error_of(refused)


def test_a_warning_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch, detector: ColourDetector, paint: Paint) -> None:
    import logging

    paint("a.png")
    found = detector.detect

    def warn(*arguments: object) -> object:
        logging.getLogger("grounded_seg.detect").warning("adapter of an\nunknown base")
        logging.getLogger("transformers").warning("chatter")
        warnings.warn("chatter", stacklevel=1)
        return found(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(detector, "detect", warn)
    assert grounded("run", "red car", "a.png").stderr == "warning: adapter of an unknown base\n"


def test_no_command_prints_the_help() -> None:
    result = grounded()
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_the_version_is_the_packages() -> None:
    assert grounded("--version").stdout == f"grounded-seg, version {grounded_seg.__version__}\n"


def all_commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that lead to each command, to its groups too."""
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from all_commands(below, (*path, name))


@pytest.mark.parametrize("words", list(all_commands()), ids=" ".join)
def test_every_option_has_a_sentence_as_its_help(words: tuple[str, ...]) -> None:
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.help
    for option in command.get_params(click.Context(command)):
        if isinstance(option, click.Option):
            # The default may stand behind the sentence.
            text = (option.help or "").partition("  [default")[0]
            assert re.fullmatch(r"[A-Z].{10,}\.", text), f"{option.opts}: {text!r}"


@pytest.mark.parametrize("words", list(all_commands()), ids=" ".join)
def test_a_help_is_whole_and_without_marks_of_its_source(words: tuple[str, ...]) -> None:
    text = grounded(*words, "--help").stdout
    assert "\\b" not in text
    assert "\b" not in text
    _, _, listed = text.partition("Commands:\n")
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


def test_the_tasks_of_ask_keep_their_lines() -> None:
    lines = grounded("ask", "--help").stdout.splitlines()
    assert "  TASK needs no TEXT:" in lines
    assert "    REGION_PROPOSAL  OCR  OCR_WITH_REGION" in lines


def test_models_are_listed_with_what_they_are_made_of() -> None:
    result = grounded("models", "list")
    assert result.exit_code == 0
    for preset in ("demo", "fast", "base", "base-ft", "large", "large-ft"):
        assert preset in result.stdout
    assert "Florence-2-base-ft" in result.stdout


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), *arguments]


def test_the_launcher_of_a_checkout_runs_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        command_line("run", "red car", "missing.png"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_machine_without_opencvs_library_is_told_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cv2'] = None\nfrom grounded_seg.cli import main\nmain(['run', 'red car', 'a.png'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    [line] = done.stderr.splitlines()
    assert line.startswith("error: OpenCV")
    assert "libgl1" in line


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    program = (
        "import click, sys\n"
        "from grounded_seg.cli import main\n"
        "@main.command()\n"
        "def flood():\n"
        "    for number in range(100000): click.echo(number)\n"
        "main(['flood'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == CLOSED_OUTPUT


def test_an_interrupt_ends_the_process_with_its_code(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from grounded_seg.cli import main\n"
        "@main.command()\n"
        "def wait():\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
        "main(['wait'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        # Of what it has kept, and how to go on, a command has to tell itself.
        assert process.stderr.read().strip() == "error: interrupted"
    assert process.returncode == INTERRUPTED


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys\n"
        "from grounded_seg.cli import main\n"
        f"for words in {list(all_commands())!r}:\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = 'torch transformers cv2 numpy rich PIL huggingface_hub pydantic yaml'\n"
        "heavy += ' difflib grounded_seg.engine grounded_seg.text.decoding grounded_seg.cli.slips'\n"
        "heavy = set(heavy.split()) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)


def test_all_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    wrong = ["--score-threshold", "2", "--min-area", "0", "--tile", "0", "--batch-size", "0", "--max-pixels", "0"]
    names = [word for word in wrong if word.startswith("--")]
    for words in (["run", "red car", "a.png"], ["eval", "truth.json", "--images", "photos"]):
        result = grounded(*words, *wrong)
        assert result.exit_code == 2
        assert [name for name in names if f"{name.removeprefix('--')} is " not in error_of(result)] == []
    # The overlap is checked although nothing is cut.
    error = error_of(grounded("run", "red car", "a.png", "--overlap", "7", "--beams", "0"))
    assert "overlap is 7" in error
    assert "beams is 0" in error
    result = grounded("ask", "OD", "a.png", "--beams", "0", "--max-pixels", "0")
    assert error_of(result).startswith("error: --beams is 0, it must be at least 1; --max-pixels is 0,")


def test_ask_refuses_images_of_more_pixels(paint: Paint) -> None:
    result = grounded("ask", "OD", paint("a.png"), "--max-pixels", "1000", "--preset", "demo")
    assert result.exit_code == 3
    assert "the limit is 1000 pixels" in error_of(result)


@pytest.mark.parametrize(
    ("called", "words", "max_pixels_of"),
    [
        ("evaluation.evaluate.evaluate", ["eval", "truth.json", "--images", "."], lambda one: one.source.max_pixels),
        ("train.training.train", ["train", ".", "-o", "run"], lambda one: one.max_pixels),
    ],
)
def test_the_limit_of_pixels_reaches_the_settings(
    monkeypatch: pytest.MonkeyPatch, called: str, words: list[str], max_pixels_of: Callable[[Any], int]
) -> None:
    given: list[Any] = []

    def stop(settings: Any, *_: object, **__: object) -> None:
        given.append(settings)
        raise UsageError("stop here")

    monkeypatch.setattr(f"grounded_seg.{called}", stop)
    for more in ([], ["--max-pixels", "5000"]):
        assert "stop here" in error_of(grounded(*words, *more))
    assert [max_pixels_of(one) for one in given] == [MAX_PIXELS, 5000]


@pytest.mark.parametrize(("version", "is_kept"), [(None, True), ("3.8.1", True), ("3.9.0rc1", False), ("4.0", False)])
def test_nothing_is_left_for_a_library_that_tells_of_it(
    monkeypatch: pytest.MonkeyPatch, version: str | None, is_kept: bool
) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    monkeypatch.setitem(sys.modules, "triton", version and SimpleNamespace(__version__=version))
    exit_codes._keep_to_the_end()
    assert bool(frozen) == is_kept
