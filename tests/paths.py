"""Where the tests find things: the checkout, its reference data, and photographs beside the checkout."""

import atexit
import gzip
import shutil
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
DATA = TESTS / "data"
DEMO = ROOT / "checkpoints" / "demo"
ORIGINAL = DATA / "florence2-original"
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
CASES = ROOT.parent / "shared" / "cases"


def unpacked(name: str) -> Path:
    """A file of `data/` that lies there gzipped, as a plain file that is gone after the session.

    >>> unpacked("coco/instances_val2014_100.json").name
    'instances_val2014_100.json'
    """
    path = _unpacked_folder() / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
    return path


@cache
def _unpacked_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="grounded-seg-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
