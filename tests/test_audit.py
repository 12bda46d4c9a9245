"""`make audit` tells how many packages were compared, and never takes none for all right."""

import json
import runpy
from typing import Any

import pytest
from paths import ROOT

AUDIT: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "audit.py"))

SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
HOLED = {"name": "pillow", "version": "9.0", "vulns": [{"id": "CVE-1", "fix_versions": ["9.1"]}]}
UNMENDED = {"name": "torch", "version": "2.6", "vulns": [{"id": "CVE-2", "fix_versions": []}]}
SKIPPED = {"name": "private", "skip_reason": "it isn't on the index"}


@pytest.mark.parametrize(
    ("packages", "lines", "code"),
    [
        ([SOUND], ["1 packages audited, 0 with a known hole"], 0),
        ([SOUND, HOLED], ["pillow 9.0: CVE-1, mended in 9.1", "2 packages audited, 1 with a known hole"], 1),
        ([UNMENDED], ["torch 2.6: CVE-2, mended in no release", "1 packages audited, 1 with a known hole"], 1),
        (
            [SOUND, SKIPPED],
            ["not audited: private (it isn't on the index)", "1 packages audited, 0 with a known hole"],
            1,
        ),
        ([], ["not audited: no package was compared"], 1),
    ],
)
def test_holes_and_the_number_of_packages_are_told(packages: list[Any], lines: list[str], code: int) -> None:
    assert AUDIT["verdict"](json.dumps({"dependencies": packages, "fixes": []})) == (lines, code)


@pytest.mark.parametrize("report", ["", "[]", "{}", "no network"])
def test_no_report_is_not_audited(report: str) -> None:
    assert AUDIT["verdict"](report) == (["not audited: pip-audit gave no report"], 1)


def test_every_package_but_our_own_is_compared_by_its_published_version() -> None:
    installed = [("torch", "2.6.0+cpu"), ("grounded_seg", "1.0"), ("PyYAML", "6.0"), ("typing_extensions", "4.1")]
    assert AUDIT["requirements"](installed) == ["pyyaml==6.0", "torch==2.6.0", "typing-extensions==4.1"]
