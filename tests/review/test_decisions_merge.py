"""Two reviewers of one run: merged by time, the later line wins, disagreements are counted."""

import json
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from review_cases import MIXED, PARTLY, REJECTED, instance, write_run

from grounded_seg import merge_runs
from grounded_seg.cli import main
from grounded_seg.errors import InputError, UsageError
from grounded_seg.review.decisions import What
from grounded_seg.review.decisions_applied import reviewed_images
from grounded_seg.review.decisions_merge import Disagreement, merge_decisions
from grounded_seg.review.decisions_of_run import Review


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    """Give a run with a decision, and a copy of it for somebody else."""
    run = write_run(tmp_path)
    with Review(run, write=True, reviewer="Ann") as review:
        review.decide(What.ACCEPT, REJECTED, [0])
        review.set_threshold("cat", 0.3)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    return run, copy


def later() -> None:
    """Let the next decision have a later time: times are written in whole milliseconds."""
    time.sleep(0.002)


def test_the_later_line_wins_and_disagreements_are_counted(copies: tuple[Path, Path]) -> None:
    run, copy = copies
    with Review(run, write=True, reviewer="Ann") as review:
        review.decide(What.ACCEPT, MIXED, [0, 1])
        # What the other one left as it was is no disagreement.
        review.decide(What.REJECT, REJECTED, [0])
        review.set_threshold("car", 0.4)
    later()
    with Review(copy, write=True, reviewer="Bob") as review:
        review.decide(What.REJECT, MIXED, [0])
        review.decide(What.RELABEL, MIXED, [2], "van")
        review.decide(What.ACCEPT, PARTLY, [review.add(PARTLY, instance(50), "dog").id])
        review.set_threshold("car", 0.6)
    later()
    with Review(run, write=True, reviewer="Ann") as review:
        review.decide(What.ACCEPT, MIXED, [2])
    merged = merge_decisions(run, copy)
    assert (merged.n_new, merged.n_known) == (5, 2)
    assert merged.disagreements == [
        Disagreement("mixed.jpg", 0, "accepted", "rejected", "rejected"),
        Disagreement("mixed.jpg", 2, "accepted", "van", "accepted"),
        Disagreement(None, "car", "0.4", "0.6", "0.6"),
    ]
    assert list(merged.lines()) == [
        "5 lines merged, 2 were there already",
        "3 disagreements: the later line wins",
        "disagreement about mixed.jpg, instance 0: accepted here, rejected there; rejected holds",
        "disagreement about mixed.jpg, instance 2: accepted here, van there; accepted holds",
        "disagreement about the threshold of car: 0.4 here, 0.6 there; 0.6 holds",
    ]
    with Review(run) as review:
        assert [one.decision and one.is_accepted for one in review.of(MIXED)] == [False, True, True, None]
        assert [one.class_name for one in review.of(MIXED)] == ["cat", "cat", "car", "car"]
        assert [one.is_accepted for one in review.of(PARTLY)] == [False, False, True]
        assert review.of(REJECTED).instances[0].is_rejected
        assert review.thresholds == {"cat": 0.3, "car": 0.6}
        times = [event.time for event in review.events()]
        assert times == sorted(times)
        assert [event.reviewer for event in review.events()].count("Bob") == 5
    # A second time there is nothing new, and the other way round the same comes out.
    before = (run / "review.jsonl").read_bytes()
    assert merge_decisions(run, copy / "review.jsonl").n_new == 0
    assert (run / "review.jsonl").read_bytes() == before
    merge_decisions(copy, run)
    assert (copy / "review.jsonl").read_bytes() == before


def test_lines_of_the_same_time_come_out_alike_whichever_file_is_merged_into_which(copies: tuple[Path, Path]) -> None:
    files = [folder / "review.jsonl" for folder in copies]
    own_ids = []
    for folder, reviewer in zip(copies, ("Ann", "Bob"), strict=True):
        with Review(folder, write=True, reviewer=reviewer) as review:
            for number in range(20):
                review.set_threshold("car", (number + 1) / 100)
            review.decide(What.ACCEPT, PARTLY, [review.add(PARTLY, instance(50), "dog").id])
    for file in files:
        lines = [json.loads(text) for text in file.read_text().splitlines()]
        own_ids.append([one["id"] for one in lines])
        file.write_text("".join(json.dumps({**one, "time": "2026-11-30T13:51:43.977+00:00"}) + "\n" for one in lines))
    whole = [file.read_bytes() for file in files]
    merged = []
    for one, other in ((0, 1), (1, 0)):
        for file, content in zip(files, whole, strict=True):
            file.write_bytes(content)
        assert merge_decisions(copies[one], files[other]).n_new == 22
        merged.append(files[one].read_bytes())
        # What was merged goes back to the other one.
        assert merge_decisions(copies[other], files[one]).n_new == 22
        assert files[other].read_bytes() == merged[-1]
    assert merged[0] == merged[1]
    ids = [json.loads(text)["id"] for text in merged[0].splitlines()]
    assert len(ids) == 46
    for own in own_ids:
        assert [one for one in ids if one in own] == own


def test_orders_of_the_same_time_that_disagree_are_merged_too(copies: tuple[Path, Path]) -> None:
    files = [folder / "review.jsonl" for folder in copies]
    lines = [json.loads(text) for text in files[0].read_text().splitlines()]
    texts = [json.dumps({**one, "time": "2026-11-30T13:51:43.977+00:00"}) + "\n" for one in lines]
    merged = []
    for one, other in ((0, 1), (1, 0)):
        files[0].write_text("".join(texts))
        files[1].write_text("".join(reversed(texts)))
        assert merge_decisions(copies[one], files[other]).n_new == 0
        merged.append(files[one].read_bytes())
    assert merged[0] == merged[1]
    assert len(merged[0].splitlines()) == len(texts)


def test_a_line_with_two_times_is_kept_once(copies: tuple[Path, Path]) -> None:
    files = [folder / "review.jsonl" for folder in copies]
    lines = [json.loads(text) for text in files[0].read_text().splitlines()]
    first, last = lines[0]["time"], lines[1]["time"]
    late = {**lines[0], "time": f"2100{first[4:]}"}
    merged = []
    for one, other in ((0, 1), (1, 0)):
        files[0].write_text("".join(json.dumps(line) + "\n" for line in lines))
        files[1].write_text(json.dumps(late) + "\n")
        merge_decisions(copies[one], files[other])
        merged.append([(line["id"], line["time"]) for line in map(json.loads, files[one].read_text().splitlines())])
    assert merged[0] == merged[1] == [(lines[0]["id"], first), (lines[1]["id"], last)]


def test_what_was_undone_stays_undone(copies: tuple[Path, Path]) -> None:
    run, copy = copies
    with Review(copy, write=True, reviewer="Bob") as review:
        review.decide(What.ACCEPT, MIXED, [0])
        review.undo()
    assert merge_decisions(run, copy).disagreements == []
    with Review(run) as review:
        assert review.of(MIXED).instances[0].decision is None


def test_a_run_without_decisions_takes_them_over(copies: tuple[Path, Path]) -> None:
    run, copy = copies
    whole = (copy / "review.jsonl").read_bytes()
    (run / "review.jsonl").unlink()
    assert merge_decisions(run, copy).n_new == 2
    assert (run / "review.jsonl").read_bytes() == whole


def test_what_cannot_be_merged_is_left_as_it_was(copies: tuple[Path, Path], tmp_path: Path) -> None:
    run, copy = copies
    before = (run / "review.jsonl").read_bytes()
    with pytest.raises(UsageError, match="own file"):
        merge_decisions(run, run)
    with pytest.raises(InputError, match="no decisions are at"):
        merge_decisions(run, tmp_path / "nowhere.jsonl")
    other = copy / "review.jsonl"
    lines = [json.loads(text) for text in other.read_text().splitlines()]
    lines[0]["boxes"] = [[5, 5, 5, 5]]
    other.write_text("".join(json.dumps(one) + "\n" for one in lines))
    with pytest.raises(InputError, match=r"copy/review.jsonl:1: instance 0 of 'rejected.jpg' has another box"):
        merge_decisions(run, copy)
    with Review(run, write=True), pytest.raises(UsageError, match="another process is writing"):
        merge_decisions(run, copy)
    assert (run / "review.jsonl").read_bytes() == before


def test_merged_runs_take_their_decisions_along(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run = write_run(tmp_path / name)
        manifest = run / "run.json"
        # As `run` writes it.
        manifest.write_text(manifest.read_text().replace('"count": 8', '"count": 8, "sha256": ""'))
        runs.append(run)
    with Review(runs[1], write=True, reviewer="Bob") as review:
        review.decide(What.REJECT, MIXED, [0])
        review.set_threshold("cat", 0.2)
        review.undo()
    with Review(runs[0], write=True) as review:
        review.decide(What.ACCEPT, MIXED, [0])
    merged = tmp_path / "merged"
    done = CliRunner().invoke(main, ["merge-runs", *map(str, runs), "-o", str(merged)])
    assert done.exit_code == 0, done.output
    assert "note: 4 lines of decisions were taken over" in done.stderr
    with Review(merged) as review:
        images = {one.line["file_name"]: one.instances[0] for one in reviewed_images(merged, review) if one.instances}
        assert images["one/images/mixed.jpg"].is_accepted
        assert images["two/images/mixed.jpg"].is_rejected
        assert review.thresholds == {}
    # A merge that was killed behind its last file is finished; one that fails at the decisions leaves nothing.
    (merged / ".merging").touch()
    with pytest.raises(UsageError, match="already holds"):
        merge_runs(runs, merged)
    assert not (merged / ".merging").exists()
    with (runs[0] / "review.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match=r"review.jsonl:2: this line is damaged"):
        merge_runs(runs, tmp_path / "half")
    assert [path.name for path in (tmp_path / "half").iterdir() if path.name != ".lock"] == []
    # Without decisions nothing is written.
    for run in runs:
        (run / "review.jsonl").unlink()
    assert merge_runs(runs, tmp_path / "again").n_done == 14
    assert not (tmp_path / "again" / "review.jsonl").exists()
