"""A server of the demo under load, and under what hostile callers send.

    python benchmarks/serve_load.py [--requests 200] [--clients 8] [--scenes 40] [--port 0]

Starts `grounded-seg serve --preset demo` on this machine and sends it rendered scenes: first one client alone, then
several at once. Every answer is compared with the line that `run` writes for the image. Then callers go away, send a
body of 1 GB, wrong images, a wrong token, a path outside the root, and an address that isn't allowed. Prints p50, p95
and throughput, with the detector's alone. Ends with exit code 1 if an answer is lost or wrong, several clients have
less than 1.2 times the throughput of one, or something hostile isn't refused with its own status.
"""

import argparse
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image

from grounded_seg.geometry.masks import mask_iou, run_length_from_coco
from grounded_seg.scenes import Split, render_scene

PROMPTS = "car; ball"
TOKEN = "load-test"  # noqa: S105  (of a server that lives for a minute)
LEAST_RATIO = 1.2
OFF_SCORE, OFF_PX, LEAST_IOU = 1e-4, 0.01, 0.999
"""A batch of another size changes the last bits of its numbers."""


@dataclass
class Load:
    """What some clients saw."""

    seconds: list[float] = field(default_factory=list)
    """Of each request."""
    detector_s: float = 0.0
    """Of all requests, each its share of its batch."""
    n_lost: int = 0
    n_wrong: int = 0
    n_to_the_last_digit: int = 0
    total_s: float = 0.0

    def line(self, name: str) -> str:
        """Say it all in a line."""
        p50, p95 = (1000 * statistics.quantiles(self.seconds, n=20)[place] for place in (9, 18))
        n = len(self.seconds)
        return (
            f"{name}: {n} requests, {n / self.total_s:.2f} a second, p50 {p50:.0f} ms, p95 {p95:.0f} ms; the "
            f"detector's alone {n / self.detector_s:.2f} a second; {self.n_lost} lost, {self.n_wrong} wrong, "
            f"{self.n_to_the_last_digit} equal to the last digit"
        )


def main() -> int:
    """Run both parts, and print what they came to."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--requests", type=int, default=200)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--scenes", type=int, default=40)
    options.add_argument("--port", type=int, default=0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        images = write_scenes(folder / "images", chosen.scenes)
        right = lines_of_a_run(folder, images)
        with server(folder, chosen.port) as port:
            measured(port, images, right, 1, 2 * chosen.clients)  # warms up
            before = batches(port)
            alone = measured(port, images, right, 1, chosen.requests // 4)
            between = batches(port)
            together = measured(port, images, right, chosen.clients, chosen.requests)
            after = batches(port)
            print(alone.line("1 client"))
            print(together.line(f"{chosen.clients} clients"))
            sizes = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in ((before, between), (between, after))]
            print(f"images in a batch: {sizes[0]:.2f} with 1 client, {sizes[1]:.2f} with {chosen.clients}")
            ratio = (len(together.seconds) / together.total_s) / (len(alone.seconds) / alone.total_s)
            print(f"throughput: {ratio:.2f} times that of one client, at least {LEAST_RATIO}")
            problems = [
                f"{one.n_lost} lost, {one.n_wrong} wrong" for one in (alone, together) if one.n_lost + one.n_wrong
            ]
            problems += [] if ratio >= LEAST_RATIO else [f"throughput of {ratio:.2f} times"]
            problems += hostile(port, folder, images, right)
    print(*(f"NOT MET: {one}" for one in problems), sep="\n")
    return int(bool(problems))


def write_scenes(folder: Path, n_scenes: int) -> list[Path]:
    """Write rendered scenes as JPEG."""
    folder.mkdir()
    paths = [folder / f"{index:03}.jpg" for index in range(n_scenes)]
    for index, path in enumerate(paths):
        PIL.Image.fromarray(render_scene(Split.TEST, index).pixels).save(path, quality=92)
    return paths


def lines_of_a_run(folder: Path, images: Sequence[Path]) -> dict[str, Any]:
    """Give the lines of a run over the images, by name."""
    command = ["run", PROMPTS, str(folder / "images"), "--preset", "demo", "-o", str(folder / "run"), "--save", "none"]
    subprocess.run([sys.executable, "-m", "grounded_seg.cli", *command, "--quiet"], check=True, capture_output=True)
    lines = (json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines())
    by_name = {line["file_name"]: line for line in lines}
    assert by_name.keys() == {path.name for path in images}
    return by_name


@contextmanager
def server(folder: Path, port: int) -> Iterator[int]:
    """Start a server, and end it as a cluster would."""
    command = ["serve", "--preset", "demo", "--port", str(port), "--root", str(folder / "images"), "--token", TOKEN]
    with subprocess.Popen(
        [sys.executable, "-m", "grounded_seg.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)/", process.stdout.readline())
            assert found is not None, "the server didn't start"
            yield int(found[1])
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, "the server didn't end cleanly"
        finally:
            process.kill()


def asked(connection: http.client.HTTPConnection, content: bytes, name: str) -> tuple[int, Any, str]:
    """Send an image as a form; gives status, answer and the header with the seconds of each stage."""
    parts = (("prompts", "", PROMPTS.encode()), ("file", f'; filename="{name}"', content))
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{field}"{more}\r\n\r\n'.encode() + value + b"\r\n"
        for field, more, value in parts
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Bearer {TOKEN}"}
    connection.request("POST", "/v1/segment", body + b"--b--\r\n", headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()), answer.headers.get("Server-Timing", "")


def measured(port: int, images: Sequence[Path], right: dict[str, Any], n_clients: int, n_requests: int) -> Load:
    """Have clients send requests, each the next when it has its answer."""
    load, lock, numbers = Load(), threading.Lock(), iter(range(n_requests))
    contents = {path.name: path.read_bytes() for path in images}

    def client() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                path = images[number % len(images)]
                started = time.perf_counter()
                try:
                    status, line, timing = asked(connection, contents[path.name], path.name)
                except (OSError, http.client.HTTPException):
                    status, line, timing = 0, None, ""
                seconds = time.perf_counter() - started
                with lock:
                    note(load, status, line, timing, right[path.name], seconds)

    threads = [threading.Thread(target=client) for _ in range(n_clients)]
    started = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    load.total_s = time.perf_counter() - started
    load.n_lost += n_requests - len(load.seconds)
    return load


def note(load: Load, status: int, line: Any, timing: str, right: Any, seconds: float) -> None:
    """Count an answer."""
    if status != 200:
        return
    load.seconds.append(seconds)
    found = re.search(r"detect;dur=([\d.]+)", timing)
    load.detector_s += float(found[1]) / 1000 if found else 0.0
    load.n_to_the_last_digit += line == right
    load.n_wrong += not same(line, right)


def same(line: Any, right: Any) -> bool:
    """Whether two lines tell of the same instances."""
    if (line["width"], line["height"]) != (right["width"], right["height"]):
        return False
    pairs = list(zip(line["instances"], right["instances"], strict=False))
    return len(line["instances"]) == len(right["instances"]) and all(same_instance(one, other) for one, other in pairs)


def same_instance(one: Any, other: Any) -> bool:
    """Whether two instances are the same but for the last bits of their numbers."""
    words = all(one["attributes"][name] == other["attributes"][name] for name in ("label", "prompt"))
    box = max(abs(a - b) for a, b in zip(one["detector_bbox"], other["detector_bbox"], strict=True))
    [[iou]] = mask_iou(*([run_length_from_coco(each["segmentation"])] for each in (one, other))).tolist()
    return words and abs(one["score"] - other["score"]) <= OFF_SCORE and box <= OFF_PX and iou >= LEAST_IOU


def batches(port: int) -> tuple[float, float]:
    """Give the server's counts of images and batches."""
    text = get(port, "/metrics")[1]
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(figures["grounded_seg_images_total"]), float(figures["grounded_seg_batches_total"])


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Ask for something with a token, or with other headers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path, headers=headers or {"Token": TOKEN})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def post(port: int, path: str, fields: Any) -> tuple[int, Any]:
    """Send JSON."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(fields), {"Token": TOKEN, "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def hostile(port: int, folder: Path, images: Sequence[Path], right: dict[str, Any]) -> list[str]:
    """Send what should be refused, each followed by a request that should be answered; gives what went wrong."""
    problems: list[str] = []

    def check(what: str, status: object, expected: object) -> None:
        load = measured(port, images[:1], right, 1, 1)
        answers = "and then it answers" if not load.n_lost + load.n_wrong else "and then it doesn't answer"
        print(f"{what}: {status}, {answers}")
        if status != expected or load.n_lost + load.n_wrong:
            problems.append(f"{what}: {status} instead of {expected}, {answers}")

    go_away(port, images[0].read_bytes())
    check("clients that go away", "in hand: " + in_hand(port), "in hand: 0")
    check("a body of 1 GB", huge(port), 413)
    wrong = [os.urandom(2000), b"", images[0].read_bytes()[:3000], b"<svg/>", b"GIF89a" + bytes(50)]
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        statuses = [asked(connection, wrong[number % len(wrong)], "x.jpg")[0] for number in range(50)]
    check("50 wrong images", sorted(set(statuses)), [422])
    check("a wrong token", get(port, "/v1/models", Authorization="Bearer no")[0], 401)
    check("another name for this machine", get(port, "/health", Host="evil.example")[0], 421)
    (folder / "secret.jpg").write_bytes(images[0].read_bytes())
    (folder / "images" / "link.jpg").symlink_to(folder / "secret.jpg")
    for path in ("../secret.jpg", "link.jpg", str(folder / "secret.jpg")):
        check("a path outside the root", post(port, "/v1/segment", {"path": path, "prompts": PROMPTS})[0], 403)
    config = (
        '<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i"><Label value="car"/></BrushLabels></View>'
    )
    task = {"id": 1, "data": {"i": "http://127.0.0.1:9/a.jpg"}}
    status, answer = post(port, "/predict", {"tasks": [task], "label_config": config})
    check("an address that isn't allowed", (status, answer["results"][0]["result"]), (200, []))
    return problems


def go_away(port: int, content: bytes) -> None:
    """Begin requests and leave: in the middle of one, and while an answer is waited for."""
    head = f"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nToken: {TOKEN}\r\n".encode()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as gone:
            gone.sendall(head + b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=0.05)) as leaving, suppress(OSError):
            asked(leaving, content, "a.jpg")


def in_hand(port: int) -> str:
    """Give the requests that are in hand, once it is 0 or half a minute has gone."""
    end = time.monotonic() + 30
    while True:
        found = re.search(r"^grounded_seg_requests_in_hand (\d+)$", get(port, "/metrics")[1], re.MULTILINE)
        if found is not None and (found[1] == "0" or time.monotonic() > end):
            return found[1]
        time.sleep(0.2)


def huge(port: int) -> int:
    """Send 1 GB as long as the server listens; gives its status."""
    part, n_sent = b"x" * (1 << 20), 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as asking:
        head = f"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nToken: {TOKEN}\r\nContent-Length: {1 << 30}\r\n\r\n"
        asking.sendall(head.encode())
        answer = asking.recv(1 << 16)
        with suppress(OSError):
            while n_sent < 1 << 30:
                n_sent += asking.send(part)
    print(f"  (of 1 GB {n_sent / 1e6:.0f} MB were taken after the refusal)")
    found = re.match(rb"HTTP/1\.1 (\d+)", answer)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
