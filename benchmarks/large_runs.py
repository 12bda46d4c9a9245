"""How fast the bookkeeping of a large run is: journal, merging of shards, tables, status.

    python benchmarks/large_runs.py [--images 200000] [--instances 5] [--shards 8] [--output large_runs.json]

Makes up a finished run of that many images as shards, with run-length masks of ellipses on images of 640 x 480 px;
every hundredth was skipped. Then it measures, each command in a process of its own: the bytes of a journal line,
`merge-runs` with and without tables, and `status` while the journals are unfinished. Seconds are those of the processor
(`cpu_s`), which other work on the machine hardly changes, and those on the clock; both include the start of the
process. Memory is its peak. A quarter of the images is merged too, to show that memory doesn't grow with them. The
merged files are read back: each image has to be there. What docs/large_runs.md plans with comes from here.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

from folder_journal import write_journal
from own_process import run_command_line

from grounded_seg.runs.journal import count_lines
from grounded_seg.runs.manifest import ImageNames, Manifest, ShardRecord, Started
from grounded_seg.runs.shards import shard_range
from grounded_seg.settings import RunSettings, Shard

ROOT = Path("/photos")
PLAN_IMAGES = 10_000_000


def make_shards(folder: Path, n_images: int, n_instances: int, count: int) -> list[Path]:
    """Make up the folders of finished shards."""
    whole = folder / "results.jsonl"
    write_journal(whole, n_images, n_instances)
    names = [f"camera/{number:09}.jpg" for number in range(n_images)]
    of_all = ImageNames.of(ROOT, names)
    runs = []
    with whole.open("rb") as lines:
        for number in range(1, count + 1):
            part = shard_range(n_images, 1, Shard(number, count))
            runs.append(folder / f"shard-{number}")
            runs[-1].mkdir()
            with (runs[-1] / "results.jsonl").open("wb") as journal:
                journal.writelines(next(lines) for _ in part)
            counts = count_lines(runs[-1] / "results.jsonl")
            manifest = Manifest(
                {"red car": "car"},
                ("/photos",),
                ImageNames.of(ROOT, names[part.start : part.stop]),
                RunSettings(shard=f"{number}/{count}"),
                {"device": "cuda:0", "dtype": "bfloat16"},
                images_at_once=1,
                counts={"images": counts.n_lines, "skipped": counts.n_skipped},
                exit_code=1,
                shard=ShardRecord(number, count, of_all),
                started=Started.now(0),
            )
            manifest.write(runs[-1] / "run.json")
    whole.unlink()
    return runs


def measured(*arguments: str) -> dict[str, float]:
    """Run a command: seconds of the processor and on the clock, and the peak of its memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, peak_mb = run_command_line(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(cpu_s, 2), "seconds": round(seconds, 2), "peak_mb": round(peak_mb)}


def merge(folder: Path, n_images: int, *options: str) -> dict[str, Any]:
    """Merge all shards of a folder; what it took, after a look at the result."""
    merged = folder / "merged"
    took = measured("merge-runs", str(folder / "shard-*"), "-o", str(merged), "--quiet", *options)
    assert count_lines(merged / "results.jsonl").n_lines == n_images
    with (merged / "annotations.json").open(encoding="ascii") as lines:
        assert (
            sum(line.startswith('{"id": ') and '"file_name": ' in line for line in lines) == n_images - n_images // 100
        )
    sizes = {path.name: path.stat().st_size for path in merged.iterdir()}
    shutil.rmtree(merged)
    return {**took, "images_per_s": round(n_images / took["cpu_s"]), **sizes}


def status(folder: Path, runs: list[Path], few: Path) -> dict[str, Any]:
    """Ask how far the shards are, as if all were under way: their journals have to be counted, unlike that of `few`."""
    for run in runs:
        manifest = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**manifest, "exit_code": None, "counts": None}))
    start = measured("status", str(few), "--json")
    took = measured("status", str(folder / "shard-*"), "--json")
    n_bytes = sum((run / "results.jsonl").stat().st_size for run in runs)
    counting_s = max(took["cpu_s"] - start["cpu_s"], 0.01)
    return {**took, "of_start_s": start["cpu_s"], "gb_per_s": round(n_bytes / 1e9 / counting_s, 2)}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--images", type=int, default=200_000)
    options.add_argument("--instances", type=int, default=5, help="on each image")
    options.add_argument("--shards", type=int, default=8)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    figures: dict[str, Any] = {"cores": os.cpu_count(), "images": chosen.images, "instances": chosen.instances}
    with tempfile.TemporaryDirectory() as name:
        few, all_of_them = Path(name, "few"), Path(name, "all")
        few.mkdir()
        all_of_them.mkdir()
        n_few = chosen.images // 4
        make_shards(few, n_few, chosen.instances, chosen.shards)
        figures["merge_a_quarter"] = merge(few, n_few)
        runs = make_shards(all_of_them, chosen.images, chosen.instances, chosen.shards)
        n_bytes = sum((run / "results.jsonl").stat().st_size for run in runs)
        figures["journal_bytes_per_image"] = round(n_bytes / chosen.images)
        figures["merge"] = merge(all_of_them, chosen.images)
        figures["merge_with_tables"] = merge(all_of_them, chosen.images, "--results", "parquet")
        figures["status"] = status(all_of_them, runs, few / "shard-1")
    scale = PLAN_IMAGES / chosen.images
    figures["of_10_million"] = {
        "journal_gb": round(figures["journal_bytes_per_image"] * PLAN_IMAGES / 1e9, 1),
        "merge_minutes": round(figures["merge"]["cpu_s"] * scale / 60),
        "merge_with_tables_minutes": round(figures["merge_with_tables"]["cpu_s"] * scale / 60),
        "annotations_gb": round(figures["merge"]["annotations.json"] * scale / 1e9, 1),
    }
    print(json.dumps(figures, indent=2))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
