"""How `grounded-seg view` does on a long journal, and whether a kill loses a decision.

    python benchmarks/view_large.py [--images 100000] [--instances 5] [--kills 10] [--output view_large.json]

Makes up a journal of that many lines, with run-length masks of ellipses on images of 640 x 480 px, and starts `view` on
it. Printed are the time of the first index, the time until the page is ready in Chromium (its first tiles drawn) once
that is done, the server's memory at its peak, and the time of each filter as the page asks for it. Then `view` is
killed (-9) in the middle of decisions that several clients make, so many times: every decision that was answered has to
be there when it is started again. Exits with 1 if a limit is passed or a decision is lost.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ellipses import HEIGHT, WIDTH, ellipses
from PIL import Image
from playwright.sync_api import sync_playwright

from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.journal import text_of

LIMIT_READY_S, LIMIT_FILTER_S, LIMIT_MB = 3.0, 1.0, 300
KINDS = ("car", "ball", "boat", "house")
FILTERS = (
    "",
    "class_name=car",
    "min_score=0.4&max_score=0.6",
    "min_mask=0.3&max_mask=0.5",
    "leaves_box=true",
    "touches_border=true",
    "decided=undecided",
    "decided=accepted",
    "name=99",
    "name=5.jpg",
    "images=without",
    "order=lowest",
    "order=most",
    "class_name=boat&min_score=0.5&name=7&order=lowest",
)
N_CLIENTS = 4
N_KILLED_IMAGES = 2000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write_run(run: Path, n_images: int, n_instances: int) -> None:
    """Make up a run; every hundredth image was skipped, and the first ones are there to be shown."""
    (run / "images" / "camera").mkdir(parents=True)
    rng = np.random.default_rng(0)
    made: list[Any] = []
    for number, shape in enumerate(ellipses()):
        kind = KINDS[number % len(KINDS)]
        attributes = {"label": kind, "prompt": f"a {kind}", "detector_score": 0.5, "mask_score": 0.5}
        made.append({**shape, "detector_bbox": shape["bbox"], "attributes": attributes})
    with (run / "results.jsonl").open("w", encoding="ascii") as file:
        for number in range(n_images):
            is_skipped = number % 100 == 99
            instances = []
            for step in range(0 if is_skipped else int(rng.integers(0, 2 * n_instances + 1))):
                one = made[(number * 7 + step) % len(made)]
                score, mask_score = (round(float(value), 6) for value in rng.uniform(size=2))
                more = {"mask_score": mask_score} | ({"leaves_box": True} if score < 0.1 else {})
                left = 0.0 if score > 0.9 else one["bbox"][0]
                box = [left, *one["bbox"][1:]]
                instances.append({**one, "bbox": box, "score": score, "attributes": one["attributes"] | more})
            line: Any = {
                "file_name": f"camera/{number:09}.jpg",
                "status": "skipped" if is_skipped else "done",
                "width": None if is_skipped else WIDTH,
                "height": None if is_skipped else HEIGHT,
                "instances": instances,
                "reason": "it is empty (0 bytes)" if is_skipped else None,
                "error": "ImageError" if is_skipped else None,
            }
            file.write(f"{text_of(line)}\n")
            if number < 100:
                pixels = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
                Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(run / "images" / line["file_name"])
    manifest = {
        "prompts": {f"a {kind}": kind for kind in KINDS},
        "images": {"root": str(run / "images"), "count": n_images},
        "settings": {"max_pixels": 10_000_000, "boxes_only": False},
        "exit_code": 0,
    }
    (run / "run.json").write_text(json.dumps(manifest))


@contextmanager
def viewed(run: Path) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """Start `view`; give its process, its address, and the time of its index in seconds."""
    words = [sys.executable, "-m", "grounded_seg.cli", "view", str(run), "--port", "0", "--no-browser"]
    log = run / "view.log"
    with log.open("w") as errors, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+/", server.stdout.readline())
            indexed = re.search(r"indexed in ([\d.]+) s", log.read_text())
            if found is None or indexed is None:
                sys.exit(f"view didn't start: {log.read_text()}")
            yield server, found[0], float(indexed[1])
        finally:
            server.kill()


def asked(url: str, content: Any = None) -> Any:
    """Ask the server, with something to write or without."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  (ours)
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.loads(answer.read())


def ready_s(address: str) -> float:
    """Time until the page shows its first tiles with what was found, in a browser that has never seen it."""
    if CHROMIUM is None:
        sys.exit("there is no Chromium here; install the system's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        started = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("body.ready")
        page.wait_for_function("document.querySelector('.tile canvas')?.width > 0")
        seconds = time.perf_counter() - started
        # To the end and back, as somebody does who looks around.
        for share in (1, 0.5, 0):
            page.evaluate(
                "share => { const e = document.querySelector('#grid-scroll'); e.scrollTop = e.scrollHeight * share; }",
                share,
            )
            page.wait_for_timeout(700)
        browser.close()
    return seconds


def peak_mb(process: subprocess.Popen[str]) -> float:
    """Most memory that a process had so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def killed_once(run: Path, rng: np.random.Generator) -> dict[tuple[int, int], str]:
    """Decide by several clients until `view` is killed; give what was answered, by image and instance."""
    answered: dict[tuple[int, int], str] = {}
    counts = [len(json.loads(text)["instances"]) for text in (run / "results.jsonl").read_text().splitlines()]
    with viewed(run) as (server, address, _):
        jobs = [(image, key) for image in rng.permutation(len(counts)).tolist() for key in range(counts[image])]

        def decide(number: int) -> None:
            for image, key in jobs[number::N_CLIENTS]:
                what = "accept" if (image + key) % 2 else "reject"
                try:
                    asked(f"{address}api/images/{image}/decision", {"what": what, "keys": [key]})
                except OSError:
                    return
                answered[image, key] = what

        clients = [threading.Thread(target=decide, args=(number,)) for number in range(N_CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(float(rng.uniform(0.3, 1.5)))
        server.kill()
        for client in clients:
            client.join()
    return answered


def n_lost(run: Path, answered: dict[tuple[int, int], str]) -> int:
    """Count the answered decisions that aren't there."""
    lines = [json.loads(text) for text in (run / "results.jsonl").read_text().splitlines()]
    with Review(run) as review:
        lost = 0
        for (image, key), what in answered.items():
            made = review.decisions(lines[image]["file_name"]).decided.get(key)
            lost += made is None or made.is_accepted != (what == "accept")
    return lost


def main() -> None:
    """Measure, and kill."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=100_000)
    options.add_argument("--instances", type=int, default=5, help="mean number an image")
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--output", type=Path)
    chosen = options.parse_args()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        write_run(run, chosen.images, chosen.instances)
        size_mb = (run / "results.jsonl").stat().st_size / 1e6
        with viewed(run) as (server, address, index_s):
            about = asked(f"{address}api/run")
            print(f"{chosen.images} images, {about['n_instances']} instances, journal of {size_mb:.0f} MB")
            print(f"index {index_s:.1f} s")
            page_s = ready_s(address)
            print(f"page ready after {page_s:.2f} s (limit {LIMIT_READY_S:g})")
            times = {}
            for one in FILTERS:
                taken = []
                for _ in range(3):
                    started = time.perf_counter()
                    n_found = len(asked(f"{address}api/selection?{one}")["images"])
                    taken.append(time.perf_counter() - started)
                times[one] = statistics.median(taken)
                print(f"filter {one or '(none)'}: {n_found} images in {times[one]:.3f} s (limit {LIMIT_FILTER_S:g})")
            image = asked(f"{address}api/selection?images=with")["images"][-1]
            started = time.perf_counter()
            asked(f"{address}api/images/{image}/decision", {"what": "accept", "keys": [0]})
            print(f"a decision in {time.perf_counter() - started:.3f} s")
            memory_mb = peak_mb(server)
            print(f"memory {memory_mb:.0f} MB at its peak (limit {LIMIT_MB})")
        problems += [f"page ready after {page_s:.2f} s"] if page_s > LIMIT_READY_S else []
        problems += [f"filter {name}: {s:.2f} s" for name, s in times.items() if s > LIMIT_FILTER_S]
        problems += [f"memory {memory_mb:.0f} MB"] if memory_mb > LIMIT_MB else []
        run = Path(folder, "killed")
        write_run(run, N_KILLED_IMAGES, chosen.instances)
        rng, answered, lost = np.random.default_rng(1), {}, 0
        for _ in range(chosen.kills):
            answered |= killed_once(run, rng)
            lost = max(lost, n_lost(run, answered))
        print(f"killed {chosen.kills} times amid decisions: {len(answered)} answered, {lost} lost")
        problems += [f"{lost} of {len(answered)} answered decisions lost"] if lost else []
        if chosen.output is not None:
            figures = {"index_s": index_s, "page_s": page_s, "memory_mb": memory_mb, "filters_s": times}
            chosen.output.write_text(json.dumps(figures | {"answered": len(answered), "problems": problems}) + "\n")
    if problems:
        sys.exit("; ".join(problems))


if __name__ == "__main__":
    main()
