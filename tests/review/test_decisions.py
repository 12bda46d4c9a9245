"""Decisions as they are made, lost, undone and read again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from review_cases import instance

from grounded_seg.coco.schema import JournalLine
from grounded_seg.errors import InputError, OutputError, UsageError
from grounded_seg.review.decisions import What, event_from
from grounded_seg.review.decisions_of_run import Review


def line(name: str = "a.jpg", *lefts: float) -> JournalLine:
    return {
        "file_name": name,
        "status": "done",
        "width": 100,
        "height": 80,
        "instances": [instance(left) for left in lefts],
        "reason": None,
        "error": None,
    }


A = line("a.jpg", 1, 2, 3)
B = line("sub/b.jpg")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give the folder of a run, as far as decisions need it."""
    (tmp_path / "run.json").write_text(json.dumps({"prompts": {"a cat": "cat"}}))
    return tmp_path


def states(run: Path, of: JournalLine = A) -> list[tuple[bool | None, str]]:
    """Whether each instance was accepted, None if it is undecided, and its class; from the file."""
    with Review(run) as review:
        found = review.of(of)
        from_memory = review.decisions(of["file_name"]).decided
        assert [from_memory.get(one.key) for one in found] == [one.decision for one in found]
        # Everything undecided is below this one.
        assert review.decisions(of["file_name"]).was_seen is found.is_settled({"cat": 0.9})
    return [(one.decision and one.decision.is_accepted, one.class_name) for one in found]


def test_the_later_line_wins_and_is_read_again(run: Path) -> None:
    with Review(run, write=True, reviewer="Ann") as review:
        review.decide(What.ACCEPT, A, [0, 1])
        review.decide(What.REJECT, A, [1, 2])
        review.decide(What.RELABEL, A, [2], "dog")
        made = review.decide(What.CLEAR, A, [0])
        assert next(iter(review.of(A))).decision is None
    assert states(run) == [(None, "cat"), (False, "cat"), (True, "dog")]
    lines = [json.loads(text) for text in (run / "review.jsonl").read_text().splitlines()]
    assert [one["what"] for one in lines] == ["accept", "reject", "relabel", "clear"]
    assert lines[0]["instances"] == [0, 1]
    assert lines[0]["boxes"] == [[1, 1.5, 10, 20], [2, 1.5, 10, 20]]
    assert {one["reviewer"] for one in lines} == {"Ann"}
    assert lines[3]["id"] == made.id
    assert all(one["time"].endswith("+00:00") for one in lines)
    assert not (run / ".review.lock").exists()


def test_an_undone_line_holds_no_more_and_can_be_had_back(run: Path) -> None:
    with Review(run, write=True) as review:
        first = review.decide(What.ACCEPT, A, [0])
        second = review.decide(What.REJECT, A, [0, 1])
        assert review.undo() == second
        assert states(run) == [(True, "cat"), (None, "cat"), (None, "cat")]
        review.set_threshold("cat", 0.4)
        review.set_threshold("cat", 0.6)
        review.undo()
        assert review.thresholds == {"cat": 0.4}
        review.undo()
        assert review.thresholds == {}
        assert review.undo() == first
        assert review.undo() is None
    assert states(run) == [(None, "cat")] * 3
    # An undoing can be undone by hand, too.
    events = [json.loads(text) for text in (run / "review.jsonl").read_text().splitlines()]
    [undoing] = [one for one in events if one.get("undoes") == second.id]
    again = {**undoing, "id": "0" * 15 + "1", "undoes": undoing["id"]}
    with (run / "review.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    assert states(run) == [(False, "cat"), (False, "cat"), (None, "cat")]


def test_each_reviewer_undoes_their_own_lines(run: Path) -> None:
    with Review(run, write=True, reviewer="Ann") as review:
        review.decide(What.ACCEPT, A, [0])
    with Review(run, write=True, reviewer="Bob") as review:
        review.decide(What.ACCEPT, A, [1])
    with Review(run, write=True, reviewer="Ann") as review:
        review.undo()
        assert review.undo() is None
    assert states(run) == [(None, "cat"), (True, "cat"), (None, "cat")]


def test_what_was_added_is_decided_on_like_the_others(run: Path) -> None:
    with Review(run, write=True) as review:
        added = review.add(B, instance(7, "red car", 0.25), "car")
        assert states(run, B) == [(None, "car")]
        with pytest.raises(UsageError, match=r"no instance 'f+'"):
            review.decide(What.ACCEPT, B, ["f" * 16])
        review.decide(What.RELABEL, B, [added.id], "van")
        [found] = review.of(B)
        assert (found.is_new, found.is_accepted, found.class_name, found.instance) == (
            True,
            True,
            "van",
            instance(7, "red car", 0.25),
        )
    assert states(run, B) == [(True, "van")]
    with Review(run, write=True) as review:
        review.undo()
        review.undo()
    assert states(run, B) == []


def test_an_image_without_instances_is_decided_when_it_was_looked_through(run: Path) -> None:
    with Review(run, write=True) as review:
        assert not review.of(B).is_settled({})
        review.decide(What.ACCEPT, B)
        assert review.of(B).is_settled({})
        review.decide(What.REJECT, A, [0])
        assert not review.of(A).is_settled({})
        assert review.of(A).is_settled({"cat": 0.6})
        review.undo()
        # Thresholds alone are nobody's look.
        assert not review.of(A).is_settled({"cat": 0.6})
        review.decide(What.ACCEPT, A)
        assert review.of(A).is_settled({"cat": 0.6})
        assert not review.of(A).is_settled({"cat": 0.5})
        with pytest.raises(UsageError, match="no instance is named"):
            review.decide(What.REJECT, A)
        with pytest.raises(UsageError, match="no instance 3"):
            review.decide(What.REJECT, A, [3])
    assert states(run, B) == []


def test_a_decision_beats_a_threshold(run: Path) -> None:
    with Review(run, write=True) as review:
        review.set_threshold("cat", 0.9)
        review.decide(What.ACCEPT, A, [0])
        review.decide(What.REJECT, A, [1])
        assert [one.is_below(review.thresholds) for one in review.of(A)] == [False, False, True]


def test_the_last_line_that_was_cut_off_is_left_out_and_told(run: Path) -> None:
    with Review(run, write=True) as review:
        review.decide(What.ACCEPT, A, [0])
        review.decide(What.REJECT, A, [1])
    path = run / "review.jsonl"
    whole = path.read_bytes()
    for n_bytes in range(len(whole.splitlines(keepends=True)[0]) + 1, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        with Review(run) as review:
            [note] = review.notes
            assert "cut off" in note
            assert f"{path}:2" in note
        # A reader changes nothing.
        assert path.read_bytes() == whole[:n_bytes]
    with Review(run, write=True) as review:
        assert len(review.notes) == 1
        review.decide(What.REJECT, A, [2])
    assert states(run) == [(True, "cat"), (None, "cat"), (False, "cat")]
    # A line that lacks only its end is whole.
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with Review(run, write=True) as review:
        assert review.notes == ()
        review.decide(What.ACCEPT, A, [1])
    assert states(run) == [(True, "cat"), (True, "cat"), (False, "cat")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one: "{", "it is no JSON"),
        (lambda one: [], "it is no object"),
        (lambda one: one | {"what": "like"}, "what is 'like'"),
        (lambda one: one | {"id": "../x"}, "id isn't 16 hex digits"),
        (lambda one: one | {"time": "yesterday"}, "time is none"),
        (lambda one: one | {"time": "2026-01-01T10:00:00"}, "time is none"),
        (lambda one: one | {"reviewer": 3}, "reviewer is no text"),
        (lambda one: one | {"image": None}, "image is no text"),
        (lambda one: one | {"instances": [True]}, "neither an index nor"),
        (lambda one: one | {"instances": [-1]}, "neither an index nor"),
        (lambda one: one | {"instances": 0}, "instances is no list"),
        (lambda one: one | {"instances": [0, 1]}, "aren't equally many"),
        (lambda one: one | {"boxes": [[1, 2, 3]]}, "a box isn't four numbers"),
        (lambda one: one | {"what": "relabel"}, "class is no text"),
        (lambda one: one | {"what": "threshold", "class": "cat", "score": 1.5}, "score isn't from 0 to 1"),
        (lambda one: one | {"what": "undo"}, "undoes is no text"),
        (lambda one: one | {"what": "add", "class": "cat", "instance": {"bbox": [0, 0, 1, 1]}}, "instance isn't one"),
        (lambda one: one | {"what": "add", "class": "cat", "instance": [1]}, "instance isn't one"),
    ],
)
def test_a_damaged_line_is_named(run: Path, change: Any, why: str) -> None:
    with Review(run, write=True) as review:
        review.decide(What.ACCEPT, A, [0])
        review.decide(What.ACCEPT, A, [1])
    path = run / "review.jsonl"
    first, second = path.read_text().splitlines()
    changed = change(json.loads(first))
    damaged = changed if isinstance(changed, str) else json.dumps(changed)
    path.write_text(f"{second}\n\n{damaged}\n{second}\n")
    for write in (False, True):
        with pytest.raises(InputError, match="this line is damaged") as error:
            Review(run, write=write)
        assert str(error.value).startswith(f"{path}:3: ")
        assert why in str(error.value)
        assert not (run / ".review.lock").exists()


def test_files_put_together_by_hand_are_read(run: Path) -> None:
    with Review(run, write=True) as review:
        review.decide(What.ACCEPT, A, [0])
    path = run / "review.jsonl"
    path.write_text(path.read_text() * 2 + "\n")
    with Review(run) as review:
        assert "read once" in review.notes[0]
        assert review.n_events == 1
    # The line that was undone is gone, and so is that of an instance.
    with Review(run, write=True) as review:
        review.decide(What.REJECT, A, [0])
        review.undo()
        review.decide(What.ACCEPT, B, [review.add(B, instance(3), "cat").id])
    kept = [text for text in path.read_text().splitlines() if '"reject"' not in text and '"add"' not in text]
    path.write_text("\n".join(kept) + "\n")
    with Review(run) as review:
        assert any("undo what isn't there" in note for note in review.notes)
    assert states(run) == [(True, "cat"), (None, "cat"), (None, "cat")]
    assert states(run, B) == []


def test_decisions_about_another_run_are_refused(run: Path) -> None:
    with Review(run, write=True) as review:
        review.decide(What.ACCEPT, A, [0, 2])
    with Review(run) as review:
        review.refuse_images([])
        with pytest.raises(InputError, match=r"review.jsonl:1: the run has no image 'a.jpg'"):
            review.refuse_images(set(review.images))
        with pytest.raises(InputError, match=r"review.jsonl:1: 'a.jpg' has no instance 2"):
            review.of(line("a.jpg", 1, 2))
        with pytest.raises(InputError, match=r"review.jsonl:1: instance 2 of 'a.jpg' has another box"):
            review.of(line("a.jpg", 1, 2, 4))


def test_one_process_decides_at_a_time_and_others_read(run: Path) -> None:
    with pytest.raises(InputError, match="grounded-seg view"):
        Review(run)
    with Review(run, write=True) as review:
        review.decide(What.ACCEPT, A, [0])
        with pytest.raises(UsageError, match="another process is writing"):
            Review(run, write=True)
        assert states(run)[0] == (True, "cat")
    with Review(run) as review, pytest.raises(ValueError, match="read only"):
        review.decide(What.ACCEPT, A, [1])
    (run / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json"):
        Review(run, write=True)


def test_what_cannot_be_written_is_not_decided(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Review(run, write=True) as review:
        review.decide(What.ACCEPT, A, [0])
        whole = (run / "review.jsonl").read_bytes()

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(OutputError, match="No space left"):
                review.decide(What.REJECT, A, [0])
        assert (run / "review.jsonl").read_bytes() == whole
        assert review.of(A).instances[0].is_accepted
        review.decide(What.REJECT, A, [1])
    assert states(run) == [(True, "cat"), (False, "cat"), (None, "cat")]


def test_names_and_classes_of_any_letters_read_back(run: Path) -> None:
    name, label = "ordner/katze \udcff\n漢.jpg", 'große "Katze"'
    there = line(name, 1)
    with Review(run, write=True, reviewer="Zoë") as review:
        made = review.decide(What.RELABEL, there, [0], label)
    assert event_from((run / "review.jsonl").read_bytes()) == made
    assert states(run, there) == [(True, label)]


def test_a_killed_process_loses_no_answered_decision(run: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "from test_decisions import A, Review, What\n"
        "review = Review(Path(sys.argv[1]), write=True)\n"
        "while True:\n"
        "    print(review.decide(What.ACCEPT, A, [0]).id, flush=True)\n"
    )
    answered: list[str] = []
    for _ in range(3):
        command = [sys.executable, "-c", program, str(run), *map(str, Path(__file__).parents[:2])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            answered += [process.stdout.readline().strip() for _ in range(20)]
            process.kill()
            answered += [text.strip() for text in process.stdout if text.endswith("\n")]
    with Review(run, write=True) as review:
        there = [event.id for event in review.events()]
    assert len(answered) >= 60
    assert [one for one in there if one in set(answered)] == answered
