"""The system's Chromium, driven by Playwright, and `grounded-seg view` in a process of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP, PHONE = (1280, 720), (390, 844)
SERVER_END_S = 30


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser; tests that take it are skipped where it can't be had.

    A module's own: while Playwright is started, nothing else in this thread can run an event loop.
    """
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; install the system's package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright isn't installed: pip install playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, size: tuple[int, int] = DESKTOP, **context: Any) -> Iterator[Any]:
    """A page at an address; in the end, no error may be on its console and no other server may have been asked."""
    width, height = size
    tab = browser.new_context(viewport={"width": width, "height": height}, **context)
    page = tab.new_page()
    faults: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("body.ready")
    yield page
    tab.close()
    assert faults == []
    elsewhere = [
        url for url in asked if not url.startswith((address.split("#")[0].rpartition("/")[0] + "/", "data:", "blob:"))
    ]
    assert (elsewhere, len(asked) > 5) == ([], True)


@contextmanager
def viewed(run: Path, *options: object, end_with: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """The address of `grounded-seg view RUN`, which is ended as a service is; it has to end cleanly."""
    words = [sys.executable, "-m", "grounded_seg.cli", "view", run, "--port", 0, "--no-browser", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Its messages go to a file: a pipe that nobody reads would hold it up.
    with (
        (run / "view.log").open("w") as log,
        subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as server,
    ):
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, (line, (run / "view.log").read_text())
            yield found[0]
            server.send_signal(end_with)
            assert server.wait(SERVER_END_S) == 0, (run / "view.log").read_text()
        finally:
            server.kill()
