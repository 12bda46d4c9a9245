"""Compare every installed package with the published lists of known holes: `make audit`.

pip-audit runs in an environment of its own, so that it audits what the project uses and not itself. The number of
packages audited is printed; where none was, as without a network, that is a failure which says "not audited".
"""

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".cache" / "audit"
OWN = "grounded-seg"


def requirements(installed: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each package but our own; builds such as torch's +cpu are published under the plain version."""
    names = {name.lower().replace("_", "-"): version.partition("+")[0] for name, version in installed if name}
    return sorted(f"{name}=={version}" for name, version in names.items() if name != OWN)


def verdict(report: str) -> tuple[list[str], int]:
    """What pip-audit's JSON comes to: lines to print, and the exit code."""
    try:
        packages = json.loads(report)["dependencies"]
        audited = [one for one in packages if "vulns" in one]
        holes = [
            f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release'}"
            for one in audited
            for hole in one["vulns"]
        ]
        skipped = [f"not audited: {one['name']} ({one['skip_reason']})" for one in packages if "vulns" not in one]
    except (ValueError, KeyError, TypeError):
        return ["not audited: pip-audit gave no report"], 1
    if not audited:
        return [*skipped, "not audited: no package was compared"], 1
    n_with = sum(bool(one["vulns"]) for one in audited)
    return [*holes, *skipped, f"{len(audited)} packages audited, {n_with} with a known hole"], int(
        bool(holes or skipped)
    )


def pip_audit() -> Path:
    """The program, installed if it isn't there."""
    program = HOME / "bin" / "pip-audit"
    if not program.exists():
        venv.create(HOME, with_pip=True, clear=True)
        subprocess.run([HOME / "bin" / "python", "-m", "pip", "install", "--quiet", "pip-audit>=2.8"], check=True)
    return program


def main() -> int:
    """Print the holes and how many packages were audited; 1 where there are any, or nothing could be compared."""
    lines = requirements((one.metadata["Name"], one.version) for one in distributions())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        options = ["--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        try:
            done = subprocess.run(
                [pip_audit(), *options, "--requirement", file], check=False, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"not audited: pip-audit can't be installed ({error})", file=sys.stderr)
            return 1
    said, code = verdict(done.stdout)
    if code and not done.stdout.strip():
        said = [*done.stderr.strip().splitlines()[-1:], *said]
    print(*said, sep="\n")
    return code or done.returncode


if __name__ == "__main__":
    sys.exit(main())
