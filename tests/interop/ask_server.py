"""Have label tools ask a server of the demo with their own code, each in an environment of its own.

    python tests/interop/ask_server.py [--tools label-studio-sdk x-anylabeling-server cvat-sdk]

Label Studio's SDK checks every region that `/predict` answers with; X-AnyLabeling's own client asks `/v1/predict`;
CVAT's own driver runs the function file. Ends with exit code 1 if a tool refuses an answer, or shows another one than
was sent. A tool that can't be installed is skipped, and the reason printed.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import PIL.Image
from read_back import HERE, INSTALL_LIMIT_S, ROOT, SERVED, environment

from grounded_seg.scenes.render import Split, render_scene

QUEUE = 4
N_SCENES = 3
LIMIT_S = 300


def main() -> int:
    """Ask with each tool, and print what came of it."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tools", nargs="+", default=list(SERVED), choices=list(SERVED))
    chosen, failed = options.parse_args(), 0
    with tempfile.TemporaryDirectory() as work:
        scenes = write_scenes(Path(work))
        with server() as url:
            for tool in chosen.tools:
                try:
                    python = environment(tool)
                except subprocess.CalledProcessError as error:
                    reason = (error.stderr or "").strip().splitlines()[-1:] or ["no reason given"]
                    print(f"{tool} skipped, it can't be installed: {reason[0]}", flush=True)
                    continue
                except subprocess.TimeoutExpired:
                    print(f"{tool} skipped, it wasn't installed within {INSTALL_LIMIT_S} s", flush=True)
                    continue
                failed += ask(tool, python, url, scenes)
    return int(failed > 0)


def write_scenes(folder: Path) -> list[Path]:
    """Write rendered scenes, one of which lies on its side and is turned by EXIF."""
    paths = [folder / f"scene-{index}.jpg" for index in range(N_SCENES)]
    for index, path in enumerate(paths):
        picture = PIL.Image.fromarray(render_scene(Split.TEST, index, short_side=320).pixels)
        exif = PIL.Image.Exif()
        if index == 1:
            exif[0x0112] = 6
            picture = picture.transpose(PIL.Image.Transpose.ROTATE_90)
        picture.save(path, quality=95, exif=exif)
    return paths


@contextmanager
def server() -> Iterator[str]:
    """Start a server of the demo with a short queue."""
    command = [sys.executable, "-m", "grounded_seg.cli", "serve", "--preset", "demo", "--port", "0"]
    with subprocess.Popen([*command, "--queue", str(QUEUE)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


@contextmanager
def full_queue(url: str) -> Iterator[None]:
    """Keep as many requests in hand as the server takes, none of which ends."""
    found = re.search(r":(\d+)/", url)
    assert found is not None
    head = (
        b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    with ExitStack() as held:
        for _ in range(QUEUE):
            one = held.enter_context(socket.create_connection(("127.0.0.1", int(found[1]))))
            one.sendall(head)
        yield


def ask(tool: str, python: Path, url: str, scenes: list[Path]) -> int:
    """Run a tool's script; gives 1 if it fails."""
    script = HERE / SERVED[tool]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "QT_QPA_PLATFORM": "offscreen", "NO_PROXY": "*"}
    command = [str(python), str(script), url, *map(str, scenes)]
    with ExitStack() as stack:
        first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
        results = [first]
        if tool == "x-anylabeling-server":
            stack.enter_context(full_queue(url))
            results.append(
                subprocess.run([*command, "--full"], env=environment, capture_output=True, text=True, timeout=LIMIT_S)
            )
    for result in results:
        if result.returncode:
            print(f"{tool} FAILED:\n{result.stderr[-3000:]}", flush=True)
            return 1
        for line in json.loads(result.stdout.splitlines()[-1]):
            print(f"{tool}: {line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
