"""Where the tests find things: the checkout, its data, and reference material beside the checkout."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
DATA = TESTS / "data"
DEMO = ROOT / "checkpoints" / "demo"
SHARED = ROOT.parent / "shared"
REFERENCE = SHARED / "reference"
PHOTOS = SHARED / "data" / "photos"
