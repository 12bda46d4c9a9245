"""`serve` on the command line: its options, its one-line errors, and a server of the demo from start to end."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from paths import ROOT

from grounded_seg.cli import main
from grounded_seg.cli.commands.serve import serve
from grounded_seg.serve.settings import ServeSettings
from grounded_seg.web.launch import bound_socket


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["serve", "--preset", "demo", *options])


def test_the_defaults_are_those_of_the_settings() -> None:
    own = {one.name: one.default for one in fields(ServeSettings) if one.default not in (None, (), MISSING)}
    options = {one.name: one.default for one in serve.params if one.name in own}
    assert len(options) == len(own) > 6
    assert options == own


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines in, which needs a token; add --token T"),
        (["--host", "no.such.host.invalid", "--token", "t"], "--host no.such.host.invalid is no address"),
        (["--token", "a b"], "--token is empty, or has a blank"),
        (["--port", "70000"], "--port is 70000, it must be between 0 and 65535"),
        (["--root", "no/such/folder"], "--root no/such/folder is no folder"),
        (["--allow-host", "*"], "--allow-host * is no host"),
        (["--queue", "0", "--batch-size", "0", "--max-mb", "0"], "--queue is 0"),
    ],
)
def test_what_can_not_be_served_is_one_line(options: list[str], words: str) -> None:
    result = run(*options)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert words in lines[0]


def test_a_taken_port_is_told_before_the_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("grounded_seg.serve.start.find_models", load)
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--port", str(port))
    assert result.exit_code == 2
    assert f"error: port {port} of 127.0.0.1 is taken by another program; give another --port" in result.stderr


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grounded_seg.web.launch._PACKAGES", ("starlette", "no_such_package"))
    result = run()
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "error: serve needs a web server; install it with `pip install 'grounded-seg[serve]'`"
    )


@pytest.mark.skipif(os.name != "posix", reason="the signals of POSIX")
def test_a_server_of_the_demo_from_start_to_end() -> None:
    command = ["serve", "--preset", "demo", "--device", "cpu", "--dtype", "float32", "--port", "0"]
    environment = {**os.environ, "GROUNDED_SEG_TOKEN": "s3cret"}
    scene = (ROOT / "examples" / "scene-1.jpg").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-m", "grounded_seg.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline())
            assert found is not None
            with closing(http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)) as asked:
                asked.request("GET", "/v1/models")
                refused = asked.getresponse()
                assert (refused.status, json.loads(refused.read())["success"]) == (401, False)
                body = b'--b\r\nContent-Disposition: form-data; name="prompts"\r\n\r\nred car\r\n--b\r\n'
                body += (
                    b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + scene + b"\r\n--b--\r\n"
                )
                headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": "Bearer s3cret"}
                asked.request("POST", "/v1/segment", body, headers)
                # It is told to end while it works, and finishes what is in hand.
                time.sleep(0.2)
                process.send_signal(signal.SIGTERM)
                answer = asked.getresponse()
                line = json.loads(answer.read())
            assert (answer.status, line["file_name"], len(line["instances"])) == (200, "a.jpg", 1)
            assert process.wait(60) == 0
            assert process.stderr is not None
            messages = process.stderr.read().splitlines()
        finally:
            process.kill()
    assert [message.partition(":")[0] for message in messages] == ["note", "note"]
    assert "the demo weights know rendered scenes only" in messages[0]
    assert "the browser asks for the token" in messages[1]
    assert "s3cret" not in "".join(messages)


def test_the_page_ships_in_the_package() -> None:
    folder = Path(sys.modules["grounded_seg.serve"].__file__ or "").parent / "page"
    assert {path.suffix for path in folder.iterdir()} == {".html", ".css", ".js", ".svg"}
