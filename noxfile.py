"""The tests with other versions than those of `.venv`: `pip install nox`, then `nox -s lowest`, `newest` or `pythons`.

Each session has an environment of its own in `.nox/`, made by uv. Words after `--` go to pytest.
"""

import re
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lowest", "newest"]
nox.needs_version = ">=2025.2.9"

EXTRAS = "serve,plots,parquet,pandas"
KINDS = ("DeprecationWarning", "FutureWarning", "UserWarning")
OTHER_WARNINGS = tuple(word for kind in KINDS for word in ("-W", f"ignore::{kind}"))
"""What a release of another day warns of is no failure here."""


def install(session: nox.Session, *options: str) -> None:
    """The package with its extras by these rules, then what the tests need, which may be newer, and leaves it alone."""
    session.install(*options, "--editable", f".[{EXTRAS}]")
    own = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    names = {normal(re.split(r"[^\w.-]", line)[0]) for line in own}
    frozen = session.run_install("uv", "pip", "freeze", silent=True, external=True) or ""  # nothing with `nox -R`
    # Not in a temporary folder of the session: all would be made there, and Ray's sockets need a short path.
    kept = Path(session.virtualenv.location, "kept.txt")
    kept.write_text("".join(f"{line}\n" for line in frozen.splitlines() if normal(line.partition("==")[0]) in names))
    session.install("--group", "dev", "--constraint", str(kept))


def normal(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run_tests(session: nox.Session) -> None:
    """The tests that `make test` runs, or those that are named."""
    session.run("grounded-seg", "doctor", "--device", "cpu", "--dtype", "float32")
    session.run("pytest", "-m", "not release", *OTHER_WARNINGS, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The lowest version of each library that `pyproject.toml` allows, and that the others take."""
    install(session, "--resolution", "lowest-direct")
    run_tests(session)


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """The newest release of each."""
    install(session, "--upgrade")
    run_tests(session)


@nox.session(python=["3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Each Python with what pip would install today: the demo, and its known answer."""
    session.install(".[serve]")
    session.run("grounded-seg", "doctor", "--device", "cpu", "--dtype", "float32")
    session.run(
        *("grounded-seg", "run", "red car", "examples/scene-1.jpg", "--preset", "demo"),
        *("-o", f"{session.create_tmp()}/out", "--overwrite"),
    )
