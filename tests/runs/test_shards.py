"""Shards: how a list is cut, that its shards merged are one run, and what doesn't go together."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from click.testing import CliRunner, Result
from conftest import Paint
from fakes import ColourDetector, Silent
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.cli import main
from grounded_seg.coco.schema import JournalLine
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.batches import batch_ranges
from grounded_seg.errors import InputError, UsageError
from grounded_seg.images.found import FoundImages
from grounded_seg.images.given import Given, PathList
from grounded_seg.records import Detection, Image
from grounded_seg.runs.merge import merge_runs
from grounded_seg.runs.run import run_images
from grounded_seg.runs.shards import cut, shard_range
from grounded_seg.settings import Drawn, ModelSettings, ResultsForm, RunSettings, SegmentSettings, Shard

CARS = PromptSet(("red car", "blue car"), ("car", "car"))
RESULTS = ("annotations.json", "results.jsonl", "results.parquet", "images.parquet")
N_IMAGES = 13


@pytest.fixture
def detector(detector: ColourDetector, monkeypatch: pytest.MonkeyPatch) -> ColourDetector:
    """Its scores depend on all images of a batch, as the last bits of real ones do."""
    plain = detector.detect

    def detect(images: Sequence[Image], *rest: Any, **options: Any) -> list[tuple[Detection, ...]]:
        score = crc32(" ".join(str(image.path) for image in images).encode()) / 2**32
        return [tuple(replace(one, score=score) for one in found) for found in plain(images, *rest, **options)]

    monkeypatch.setattr(detector, "detect", detect)
    return detector


@pytest.fixture
def photos(paint: Paint) -> Path:
    """In folders of different depth; two can't be read, and one shows nothing."""
    for number in range(N_IMAGES - 3):
        folder = ("", "a/", "a/deep/", "nest/b/")[number % 4]
        paint(f"photos/{folder}{number}.png", red=(0, 0, 5 + number, 9), blue=(20, 5, 30, 15))
    paint("photos/nest/nothing.png")
    root = Path(paint("photos/x.png", red=(0, 0, 9, 9))).parent
    (root / "x.png").write_bytes(b"")
    (root / "nest" / "b" / "damaged.jpg").write_text("no image")
    return root


def run(output: Path, path: Given, **settings: Any) -> Path:
    run_images(CARS, [path], RunSettings(output, batch_size=3, save=frozenset(), **settings), Silent())
    return output


def run_shards(folder: Path, path: Given, count: int, **settings: Any) -> list[Path]:
    return [run(folder / f"shard-{one}", path, shard=f"{one}/{count}", **settings) for one in range(1, count + 1)]


def manifest_of(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "run.json").read_text())
    return loaded


def files_of(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in RESULTS if (run / name).exists()}


@given(st.data())
def test_shards_are_cut_where_batches_begin(data: st.DataObject) -> None:
    n_images, size = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 7))
    count = data.draw(st.integers(1, 12))
    inside = data.draw(st.sets(st.integers(1, max(n_images - 1, 1)), max_size=6)) if n_images > 1 else set[int]()
    groups = (0, *sorted(inside))
    parts = [shard_range(n_images, size, Shard(number, count), groups) for number in range(1, count + 1)]
    batches = list(batch_ranges(n_images, size, groups))
    assert [index for part in parts for index in part] == list(range(n_images))
    root, names = Path("photos"), tuple(map(str, range(n_images)))
    cuts = [cut(FoundImages(root, names, groups), size, Shard(number, count)) for number in range(1, count + 1)]
    # The batches of the shards are those of the whole.
    own = [[one.file_names[index] for index in batch] for one, _ in cuts
           for batch in batch_ranges(len(one.file_names), size, one.group_starts)]  # fmt: skip
    assert own == [[names[index] for index in batch] for batch in batches if len(batch)]
    assert {record.whole for _, record in cuts} == {cuts[0][1].whole}
    starts = {part.start for part in parts if part}
    if count <= len(groups):
        assert starts <= set(groups)
    else:
        n_batches = [sum(batch.start in part for batch in batches) for part in parts]
        assert max(n_batches) - min(n_batches) <= 1


@pytest.mark.parametrize("count", [1, 3, 20])
def test_merged_shards_are_one_run(detector: ColourDetector, photos: Path, tmp_path: Path, count: int) -> None:
    plain = run(tmp_path / "plain", photos, results=ResultsForm.PARQUET)
    shards = run_shards(tmp_path / "out", photos, count)
    assert sum(manifest_of(shard)["images"]["count"] for shard in shards) == N_IMAGES
    counts = merge_runs([tmp_path / "out" / "shard-*"], tmp_path / "merged", results=ResultsForm.PARQUET)
    assert (counts.n_done, counts.n_skipped, counts.n_images) == (N_IMAGES - 2, 2, N_IMAGES)
    assert files_of(tmp_path / "merged") == files_of(plain)
    assert len(files_of(plain)) == len(RESULTS)
    merged, whole = manifest_of(tmp_path / "merged"), manifest_of(plain)
    assert merged["images"] == whole["images"]
    assert merged["counts"] == whole["counts"]
    assert merged["paths"] == list(map(str, shards))
    # Such a cut would show: a batch less or more gives other scores.
    other = run(tmp_path / "other", photos, max_pixels=10**6)
    assert files_of(other)["results.jsonl"] == files_of(plain)["results.jsonl"]
    run_images(CARS, [photos], RunSettings(tmp_path / "two", batch_size=2, save=frozenset()), Silent())
    assert files_of(tmp_path / "two")["results.jsonl"] != files_of(plain)["results.jsonl"]


def test_shards_may_be_named_in_any_order(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    plain, shards = run(tmp_path / "plain", photos), run_shards(tmp_path / "out", photos, 4)
    merge_runs([shards[2], shards[0], shards[3], shards[1]], tmp_path / "merged")
    assert files_of(tmp_path / "merged") == files_of(plain)
    assert manifest_of(tmp_path / "merged")["paths"] == list(map(str, shards))


def test_shards_of_a_list_keep_the_names_of_its_root(
    detector: ColourDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    paths = [str(path.relative_to(photos.parent)) for path in photos.rglob("*.*")]
    (tmp_path / "list").write_text("\n".join([*paths, "photos/gone.png"]))
    one_list = PathList(tmp_path / "list")
    plain, shards = run(tmp_path / "plain", one_list), run_shards(tmp_path / "out", one_list, 5)
    merge_runs(shards, tmp_path / "merged")
    assert files_of(tmp_path / "merged") == files_of(plain)
    # One of them has images of one folder only: in a run of their own, their names would be without it.
    names = [[json.loads(line)["file_name"] for line in lines_of(shard)] for shard in shards]
    assert ["nest/b/3.png", "nest/b/7.png", "nest/b/damaged.jpg"] in names


def lines_of(run: Path) -> list[str]:
    return (run / "results.jsonl").read_text().splitlines()


def test_a_shard_says_what_it_is_a_part_of(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    plain, shards = run(tmp_path / "plain", photos), run_shards(tmp_path / "out", photos, 3)
    whole = manifest_of(plain)["images"]
    assert whole["root"] == str(photos)
    for number, shard in enumerate(shards, start=1):
        manifest = manifest_of(shard)
        assert manifest["shard"] == {"number": number, "count": 3, "whole": whole}
        assert manifest["settings"]["shard"] == f"{number}/3"
        assert manifest["images"]["root"] == str(photos)
    assert "shard" not in manifest_of(plain)


def test_a_shard_without_images_is_a_finished_run(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    shards = run_shards(tmp_path / "out", photos, 20)
    [empty, *_] = [shard for shard in shards if not lines_of(shard)]
    manifest = manifest_of(empty)
    assert (manifest["exit_code"], manifest["counts"]["images"], manifest["images"]["count"]) == (0, 0, 0)
    assert json.loads((empty / "annotations.json").read_text())["images"] == []
    before = files_of(empty)
    counts = run_images(CARS, [photos], replace(settings_of(empty), resume=True), Silent())
    assert (counts.n_images, files_of(empty), manifest_of(empty)) == (0, before, manifest)
    run_images(CARS, [photos], replace(settings_of(empty), overwrite=True), Silent())
    assert files_of(empty) == before


def settings_of(shard: Path) -> RunSettings:
    return RunSettings(shard, batch_size=3, save=frozenset(), shard=manifest_of(shard)["settings"]["shard"])


class Cut(Silent):
    """Ends a run after its second image."""

    n_left = 2

    def finished_image(self, line: JournalLine) -> None:
        self.n_left -= 1
        if not self.n_left:
            raise KeyboardInterrupt


def test_a_shard_is_resumed_as_itself_only(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    plain, settings = run(tmp_path / "plain", photos), RunSettings(tmp_path / "2", batch_size=3, save=frozenset())
    asked = replace(settings, shard="2/3")
    with pytest.raises(KeyboardInterrupt):
        run_images(CARS, [photos], asked, Cut())
    with pytest.raises(UsageError, match=r'shard was "2/3" and is "3/3"'):
        run_images(CARS, [photos], replace(asked, shard="3/3", resume=True), Silent())
    with pytest.raises(UsageError, match=r'shard was "2/3" and is null'):
        run_images(CARS, [photos], replace(settings, resume=True), Silent())
    # An image more, which another shard has.
    (photos / "y.png").write_bytes((photos / "0.png").read_bytes())
    with pytest.raises(UsageError, match=r"list of all shards was "):
        run_images(CARS, [photos], replace(asked, resume=True), Silent())
    (photos / "y.png").unlink()
    run_images(CARS, [photos], replace(asked, resume=True), Silent())
    others = [run(tmp_path / number, photos, shard=f"{number}/3") for number in "13"]
    merge_runs([*others, settings.output], tmp_path / "merged")
    assert files_of(tmp_path / "merged") == files_of(plain)


def test_shards_that_do_not_make_up_a_list_are_refused(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    first, second, third = shards = run_shards(tmp_path / "out", photos, 3)
    merged = tmp_path / "merged"
    with pytest.raises(UsageError, match=r"^shard 2/3 is missing; run it with run --shard 2/3, and name all shards$"):
        merge_runs([first, third], merged)
    with pytest.raises(UsageError, match=r"^shards 1, 3 of 3 are missing; run them with run --shard 1/3 and so on"):
        merge_runs([second], merged)
    with pytest.raises(UsageError, match=rf"^shard 1/3 is there twice: {first} and {first}; name each shard once$"):
        merge_runs([first, first, second], merged)
    plain = run(tmp_path / "plain", photos)
    with pytest.raises(UsageError, match=rf"^{plain} is no shard, and {first} is; merge all shards of a list first"):
        merge_runs([first, plain], merged)
    with pytest.raises(UsageError, match=rf"^{plain} is no shard, and {second} is"):
        merge_runs([plain, second], merged)
    with pytest.raises(UsageError, match=r"is shard 2/2 and .* is shard 1/3; merge shards of one"):
        merge_runs([first, run(tmp_path / "half", photos, shard="2/2")], merged)
    (photos / "0.png").unlink()
    other_list = run(tmp_path / "other", photos, shard="2/3")
    with pytest.raises(UsageError, match=r"shards of different lists of images \(12 and 13 images\)"):
        merge_runs([first, other_list, third], merged)
    manifest = manifest_of(second)
    (second / "run.json").write_text(json.dumps({**manifest, "exit_code": None}))
    with pytest.raises(UsageError, match=rf"^{second} isn't finished; bring it to its end with run --resume$"):
        merge_runs(shards, merged)
    (first / "run.json").write_text(json.dumps({**manifest_of(first), "exit_code": None}))
    with pytest.raises(UsageError, match=rf"^{first}, {second} aren't finished; bring them to their end"):
        merge_runs(shards, merged)
    assert not merged.exists()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"segment": SegmentSettings(clean=True)}, "segment clean is true and false"),
        ({"models": ModelSettings(dtype="bfloat16")}, 'models dtype is "bfloat16" and "float32"'),
        ({"models": ModelSettings(detector="other")}, 'models detector sha256 is "'),
        ({"batch_size": 6}, "batch-size is 6 and 3"),
    ],
)
def test_shards_that_were_run_otherwise_are_refused(
    detector: ColourDetector, photos: Path, tmp_path: Path, changed: dict[str, Any], complaint: str
) -> None:
    first, _, third = run_shards(tmp_path / "out", photos, 3)
    asked = {"batch_size": 3, **changed}
    run_images(CARS, [photos], RunSettings(tmp_path / "2", shard="2/3", save=frozenset(), **asked), Silent())
    with pytest.raises(UsageError) as refused:
        merge_runs([first, tmp_path / "2", third], tmp_path / "merged")
    assert f"{tmp_path / '2'} and {first} weren't run alike: {complaint}" in str(refused.value)


def test_device_number_and_pictures_may_differ_between_shards(
    detector: ColourDetector, photos: Path, tmp_path: Path
) -> None:
    shards = [
        run(tmp_path / "1", photos, shard="1/2", models=ModelSettings(device="cuda:0")),
        run(tmp_path / "2", photos, shard="2/2", models=ModelSettings(device="cuda:1")),
    ]
    assert merge_runs(shards, tmp_path / "merged").n_images == N_IMAGES
    on_cpu = run(tmp_path / "3", photos, shard="2/2", models=ModelSettings(device="cpu"))
    with pytest.raises(UsageError, match='models device is "cpu" and "cuda"'):
        merge_runs([shards[0], on_cpu], tmp_path / "other")
    pictures = RunSettings(tmp_path / "4", batch_size=3, shard="2/2", save=frozenset({Drawn.CROPS}),
                           models=ModelSettings(device="cuda:1"))  # fmt: skip
    run_images(CARS, [photos], pictures, Silent())
    assert merge_runs([shards[0], tmp_path / "4"], tmp_path / "more").n_images == N_IMAGES


def test_shards_of_images_that_moved_are_merged_with_a_note(
    detector: ColourDetector, photos: Path, tmp_path: Path
) -> None:
    first = run(tmp_path / "1", photos, shard="1/2")
    moved = photos.rename(tmp_path / "moved")
    notes: list[str] = []
    merge_runs([run(tmp_path / "2", moved, shard="2/2"), first], tmp_path / "merged", note=notes.append)
    [note] = notes
    assert f"in different folders, {photos} and {moved}, under the same names" in note
    assert manifest_of(tmp_path / "merged")["images"]["root"] == str(photos)


def test_a_changed_journal_of_a_shard_is_found(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    shards = run_shards(tmp_path / "out", photos, 2)
    path = shards[1] / "results.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines_of(shards[1])[:-1]))
    with pytest.raises(InputError, match="don't hold the images of their list"):
        merge_runs(shards, tmp_path / "merged")
    assert not (tmp_path / "merged" / "results.jsonl").exists()
    manifest = manifest_of(shards[1])
    del manifest["shard"]["whole"]
    (shards[1] / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"run\.json is damaged .*missing required field `whole`"):
        merge_runs(shards, tmp_path / "merged")


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("wrong", ["0/3", "4/3", "a/b", "3", "1/0", "-1/3", "1/3/5", "", "1 / 3", "1.5/3", "1/2000000"])
def test_what_is_no_shard_is_one_line(detector: ColourDetector, photos: Path, tmp_path: Path, wrong: str) -> None:
    result = command("run", "red car", photos, "-o", tmp_path / "out", f"--shard={wrong}")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"error: --shard is {wrong!r}, it must be K/N with K from 1 to N, at most 1000000, such as 2/8\n"
    )
    assert not (tmp_path / "out").exists()


def test_the_commands_do_it(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", photos)
    for number in (10, 9, 2, 1, *range(3, 9)):
        output = tmp_path / "out" / f"shard-{number}"
        asked = ("red car; blue car", photos, "--batch-size", "3", "--save", "none", "--shard", f"{number:02}/10")
        assert command("run", *asked, "-o", output).exit_code in (0, 1)
    (tmp_path / "out" / "shard-1.log").write_text("a log")
    (tmp_path / "out" / "shard-logs").mkdir()
    merged = command("merge-runs", tmp_path / "out" / "shard-*", "-o", tmp_path / "merged", "--results", "parquet")
    assert merged.exit_code == 0, merged.stderr
    assert files_of(tmp_path / "merged")["results.jsonl"] == files_of(plain)["results.jsonl"]
    assert {"results.parquet", "images.parquet"} <= files_of(tmp_path / "merged").keys()
    paths = manifest_of(tmp_path / "merged")["paths"]
    assert paths == [str(tmp_path / "out" / f"shard-{number}") for number in range(1, 11)]
    nothing = command("merge-runs", tmp_path / "nowhere-*", "-o", tmp_path / "other")
    assert nothing.exit_code == 3
    assert nothing.stderr == f"error: no folder of a run matches '{tmp_path / 'nowhere-*'}'; check the pattern\n"
