"""Requests that are tried again: what is told, and when."""

import logging
import socket
import urllib.error

import pytest

from grounded_seg.weights.retries import GivenUpError, Patience, persist


def test_no_connection_is_told_at_the_first_try(caplog: pytest.LogCaptureFixture) -> None:
    def attempt() -> None:
        raise urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    slept: list[float] = []
    with (
        caplog.at_level(logging.INFO, logger="grounded_seg"),
        pytest.raises(GivenUpError, match=r"^no connection \(Temporary failure in name resolution\)$"),
    ):
        persist("owner/name", attempt, patience=Patience((2.0, 4.0), sleep=slept.append))
    assert slept == [2, 4]
    first = caplog.records[0]
    assert first.getMessage().endswith("no connection (Temporary failure in name resolution); trying again in 2 s")
    # Everyone sees it, with or without a terminal.
    assert hasattr(first, "once")
