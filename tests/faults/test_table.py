"""Every command with every fault: its results are whole or absent, and the same command again gives the same bytes.

`make faults` runs the whole table, each fault at up to 12 steps; GROUNDED_SEG_FAULT_STEPS says another number. CI runs
the cells of `run`, `export` and `validate --fix`, each fault at one step, and those from the start of `run`.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from fault_commands import COMMANDS, Command, Files, prepare_heavy, prepare_light
from fault_kinds import (
    AT_A_STEP,
    AT_THE_START,
    NEEDS_NAMESPACES,
    Fault,
    compiled_shim,
    needs_namespaces,
)
from stand_in_hub import StandInHub, serving
from warm_process import Warm

ALL = "GROUNDED_SEG_FAULT_STEPS" in os.environ
N_STEPS = int(os.environ.get("GROUNDED_SEG_FAULT_STEPS", "1"))
TRIED = [one for one in COMMANDS if ALL or one.name in ("run", "export", "validate --fix")]
STARTED = [one for one in COMMANDS if ALL or one.name == "run"]
SILENT = {"stderr closed", "all streams closed", "stderr without reader", "stderr full"}


@dataclass
class Table:
    """What all cells share: the prepared folder, and what each command gives if nothing happens to it."""

    here: Path
    light: Warm
    heavy: Warm | None
    hub: StandInHub
    golden: dict[str, Files] = field(default_factory=dict)
    steps: dict[tuple[str, str], int] = field(default_factory=dict)

    def warm(self, command: Command) -> Warm:
        if not command.heavy:
            return self.light
        assert self.heavy is not None
        return self.heavy

    def restore(self, command: Command) -> None:
        """Put everything back to where it was before any command."""
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(f"{self.here}.kept", self.here)
        if command.input:
            content = (self.here / "inputs" / command.input).read_bytes()
            (self.here / "other").write_bytes(content[: len(content) // 2])

    def run(self, command: Command, setup: Sequence[Sequence[Any]] = (), again: bool = False, **more: Any) -> Any:
        """Run a command to its end; gives the process and its exit code."""
        arguments = [one.format(here=self.here) for one in command.arguments]
        environment = {"HF_ENDPOINT": self.hub.hub_url, "GROUNDED_SEG_CACHE": str(self.here / "cache")}
        return self.warm(command).start(
            [*arguments, *(command.again if again else ())],
            cwd=self.here,
            setup=[("hub_cache", str(self.here / "hub")), *setup] if command.heavy else setup,
            environment={**environment, "SECONDS_PER_BATCH": "0", "no_proxy": "127.0.0.1,localhost"},
            program=command.program,
            **more,
        )

    def files(self) -> dict[str, bytes]:
        """All files of the results that aren't hidden."""
        results = self.here / "results"
        found = (path for path in sorted(results.rglob("*")) if path.is_file())
        named = ((path.relative_to(results), path) for path in found)
        return {
            name.as_posix(): path.read_bytes()
            for name, path in named
            if not any(part.startswith(".") for part in name.parts)
        }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    folder = tmp_path_factory.mktemp("faults")
    shim, here = compiled_shim(folder), folder / "here"
    here.mkdir()
    with ExitStack() as stack:
        light = stack.enter_context(Warm(shim))
        heavy = stack.enter_context(Warm(shim, heavy=True)) if ALL else None
        hub = stack.enter_context(serving())
        prepare_light(here, light)
        if ALL:
            hub.add("owner/tiny", prepare_heavy(here))
        here.rename(f"{here}.kept")
        yield Table(here, light, heavy, hub)


def golden(table: Table, command: Command) -> Files:
    """What a command gives if nothing happens to it; the same each time."""
    if command.name not in table.golden:
        found = []
        for _ in range(2):
            table.restore(command)
            child = table.run(command)
            assert child.wait() == command.code, child.err
            found.append(command.compared(table.files()))
        assert found[0] == found[1]
        assert any(found[0].values())
        table.golden[command.name] = found[0]
    return table.golden[command.name]


def n_calls(table: Table, command: Command, fault: Fault) -> int:
    """How many calls there are that the fault could come at."""
    key = f"{fault.kinds} {fault.below}"
    if (command.name, key) not in table.steps:
        table.restore(command)
        count = table.here / "count"
        setup = [("fault", str(table.here / fault.below), fault.kinds, 0, 0, 0, "", "")]
        child = table.run(command, setup, count_to=count)
        assert child.wait() == command.code, child.err
        table.steps[command.name, key] = int(count.read_text())
    return table.steps[command.name, key]


def chosen_steps(n: int) -> list[int]:
    """Calls from 1 to n, evenly spread; one in the middle if there is to be one."""
    if N_STEPS == 1:
        return [n // 2 + 1] if n else []
    return sorted({1 + round(index * (n - 1) / (N_STEPS - 1)) for index in range(N_STEPS)}) if n else []


def check_said(child: Any, code: int, allowed: set[int], what: str) -> None:
    """One line at most, of the right kind, with the right exit code."""
    assert code in allowed, f"{what}: exit code {code}: {child.err}"
    for text in ("Traceback", "unexpected", "Exception ignored"):
        assert text not in child.err, f"{what}: {child.err}"
    errors = [line for line in child.err.splitlines() if line.startswith("error: ")]
    assert len(errors) <= 1, f"{what}: {child.err}"
    if code in (1, 3, 4, 5) and what.partition(",")[0] not in SILENT:
        assert len(errors) == 1, f"{what}: {child.err}"


def check_whole(table: Table, command: Command, expected: Files, what: str) -> None:
    """Results that are promised whole are whole, as they were before, or not there."""
    files, before = table.files(), Path(f"{table.here}.kept", "results")
    for place in command.whole:
        there = {name: content for name, content in files.items() if name == place or name.startswith(f"{place}/")}
        if not any(there.values()) or all(
            (before / name).is_file() and (before / name).read_bytes() == content for name, content in there.items()
        ):
            continue
        whole = command.compared({**files, **there}) if command.name == "eval" else there
        wanted = {name: content for name, content in expected.items() if name in whole}
        assert wanted.keys() == {name for name in expected if name == place or name.startswith(f"{place}/")}, what
        assert {name: whole[name] for name in wanted} == wanted, f"{what}: {place} is half"


def check_readable(table: Table, what: str) -> None:
    """Whatever is there can be read: no half files under their own names."""
    for name, content in table.files().items():
        if name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".jsonl"):
            for line in content.splitlines(keepends=True):
                assert not line.endswith(b"\n") or json.loads(line), f"{what}: {name}"
        elif name.endswith((".png", ".jpg")):
            PIL.Image.open(table.here / "results" / name).load()


def bring_back(table: Table, fault: Fault) -> None:
    """Undo what the fault did to folders."""
    results, away = table.here / "results", table.here / "away"
    if away.exists():
        shutil.rmtree(results, ignore_errors=True)
        away.rename(results)
    if results.exists():
        results.chmod(0o700)


def check_again(table: Table, command: Command, expected: Files, what: str) -> None:
    """The same command, again or resumed, gives the same bytes."""
    child = table.run(command, again=True)
    code = child.wait()
    if code == 2 and "leave --resume out" in child.err:
        child = table.run(command)
        code = child.wait()
    is_there = code == 2 and any(text in child.err for text in ("not an empty folder", "already holds", "is in use"))
    assert code == command.code or is_there, f"{what}, again: exit code {code}: {child.err}"
    assert "Traceback" not in child.err
    assert command.compared(table.files()) == expected, what


@pytest.mark.parametrize("fault", AT_A_STEP, ids=lambda one: one.name)
@pytest.mark.parametrize("command", TRIED, ids=lambda one: one.name)
def test_a_fault_at_a_step(table: Table, command: Command, fault: Fault) -> None:
    if table.light.shim is None:
        pytest.skip("no C compiler for tests/faults/io_faults.c")
    if fault.name.startswith("input") and not command.input:
        pytest.skip("nothing of its own is read")
    expected, n = golden(table, command), n_calls(table, command, fault)
    if fault.below == "results":
        assert n > 0
    for step in chosen_steps(n):
        table.restore(command)
        places = (one.format(input=f"inputs/{command.input}") for one in fault.moved)
        moved = [str(table.here / one) if one else "" for one in places]
        at = ("fault", str(table.here / fault.below), fault.kinds, step, fault.action, fault.value, *moved)
        child = table.run(command, [*fault.setup, at])
        code, what = child.wait(), f"{fault.name}, step {step} of {n}"
        check_said(child, code, {command.code, *fault.codes}, what)
        bring_back(table, fault)
        check_readable(table, what)
        if not fault.same_bytes:
            continue
        if not fault.is_skipped:
            check_whole(table, command, expected, what)
        check_again(table, command, expected, what)


@pytest.mark.parametrize("name", AT_THE_START)
@pytest.mark.parametrize("command", STARTED, ids=lambda one: one.name)
def test_a_fault_from_the_start(table: Table, command: Command, name: str) -> None:
    if name in NEEDS_NAMESPACES and needs_namespaces.args[0]:
        pytest.skip(needs_namespaces.kwargs["reason"])
    steps, codes = AT_THE_START[name]
    expected = golden(table, command)
    table.restore(command)
    setup = [[str(table.here / "results") if one == "results" else one for one in step] for step in steps]
    child = table.run(command, setup)
    check_said(child, child.wait(), {command.code, *codes}, name)
    check_whole(table, command, expected, name)
    check_again(table, command, expected, name)


@pytest.mark.parametrize("command", TRIED, ids=lambda one: one.name)
def test_two_processes_in_one_folder(table: Table, command: Command) -> None:
    expected = golden(table, command)
    table.restore(command)
    both = [table.run(command) for _ in range(2)]
    codes = [child.wait() for child in both]
    assert command.code in codes, [child.err for child in both]
    for child, code in zip(both, codes, strict=True):
        check_said(child, code, {command.code, 1, 2}, "two processes")
    assert command.compared(table.files()) == expected
