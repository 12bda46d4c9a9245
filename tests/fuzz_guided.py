"""Inputs for one reader that the coverage of this package guides, by atheris where it is installed.

    pip install atheris
    PYTHONPATH=tests python tests/fuzz_guided.py "COCO truth" [--minutes 5]

It begins with inputs as `fuzz_run.py` draws them. What escapes is printed and kept as there; exit code 1 if any did.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("reader")
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--keep", type=Path, default=Path(".cache/fuzz"))
    chosen = options.parse_args()
    try:
        import atheris
    except ImportError:
        print("atheris isn't installed, or has no wheel for this Python: pip install atheris", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["grounded_seg"]):
        from fuzz_readers import LIGHT
        from fuzz_run import Tried, keep, quiet, try_many, try_once
    readers = {one.name: one for one in LIGHT}
    if chosen.reader not in readers:
        from fuzz_torch_readers import TORCH

        readers |= {one.name: one for one in TORCH}
    reader, tried, folder = readers[chosen.reader], Tried(), Path(tempfile.mkdtemp(prefix="guided-"))
    (folder / "corpus").mkdir()
    try_many(reader, folder / "in", 200, 0, tried, folder / "corpus")

    def give(content: bytes) -> None:
        before = len(tried.escapes)
        with quiet():
            try_once(reader, folder / "in", content, tried)
        if len(tried.escapes) > before:
            keep(list(tried.escapes.values())[before:], chosen.keep)

    limits = [
        f"-max_total_time={round(60 * chosen.minutes)}",
        "-rss_limit_mb=0",
        "-timeout=60",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    child = os.fork()
    if not child:
        # libFuzzer ends its process.
        atheris.Setup([sys.argv[0], *limits, str(folder / "corpus")], give)
        atheris.Fuzz()
    _, status = os.waitpid(child, 0)
    has_escapes = chosen.keep.is_dir() and any(chosen.keep.glob(f"{reader.name.replace(' ', '-')}*"))
    return int(has_escapes or status != 0)


if __name__ == "__main__":
    sys.exit(main())
