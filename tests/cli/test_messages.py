"""What of this package's own words reaches stderr."""

import logging
import sys
from collections.abc import Iterator

import pytest

from grounded_seg.cli.messages import counted, set_up_messages
from grounded_seg.engine.batch_worker import _collected_log


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Undo what is set for the process."""
    loggers = [logging.getLogger("grounded_seg"), logging.getLogger()]
    before = [(log, log.level, log.handlers[:], log.propagate) for log in loggers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", {})
        yield
    for log, level, handlers, propagate in before:
        log.setLevel(level)
        log.handlers, log.propagate = handlers, propagate


@pytest.mark.parametrize(
    ("on_terminal", "debug", "shown"),
    [
        (False, False, ["warning: two lines"]),
        (True, False, ["note: one", "warning: two lines"]),
        (False, True, ["debug: none", "note: one", "warning: two lines"]),
    ],
)
def test_notes_are_for_terminals_and_warnings_for_all(
    on_terminal: bool,
    debug: bool,
    shown: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    set_up_messages(debug=debug)
    log = logging.getLogger("grounded_seg.somewhere")
    log.debug("none")
    log.info("one")
    log.warning("two\nlines")
    assert capsys.readouterr().err.splitlines() == shown


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_note_about_one_of_many_is_printed_once_for_everyone(
    on_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    log = logging.getLogger("grounded_seg.somewhere")
    for _ in range(2):
        set_up_messages(debug=False)
        for number in range(3):
            log.info("image %d is dark", number, extra={"once": True})
            log.info("image %d is broken", number, extra={"once": True})
        # As the next command would.
        assert capsys.readouterr().err.splitlines() == ["note: image 0 is dark", "note: image 0 is broken"]


def test_one_of_a_thing_is_singular() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def test_hints_of_the_package_are_told_once_and_only_where_they_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    for hints in (True, False):
        set_up_messages(debug=False, hints=hints)
        log = logging.getLogger("grounded_seg.somewhere")
        for number in range(2):
            log.info("image %d is large", number, extra={"once": True, "is_hint": True})
        assert capsys.readouterr().err.splitlines() == (["hint: image 0 is large"] if hints else [])


def test_hints_of_workers_are_hints_too(capsys: pytest.CaptureFixture[str]) -> None:
    said = _collected_log(logging.INFO)
    logging.getLogger("grounded_seg.somewhere").info("%s is large", "a.png", extra={"once": True, "is_hint": True})
    set_up_messages(debug=False)
    for record in said * 2:
        logging.getLogger("grounded_seg").handle(logging.makeLogRecord(record))
    assert capsys.readouterr().err.splitlines() == ["hint: a.png is large"]
