"""Which tests leave the dtype to the machine, and a second pass of them with each dtype that a machine may choose.

A processor with AMX or AVX512-BF16 computes in bfloat16 where the dtype is `auto`, others in float32. A plain session
notes in pytest's cache which tests came to that choice. A session with `GROUNDED_SEG_TEST_DTYPE=bfloat16` runs those
alone, all of them where no plain session went before, and `auto` is bfloat16 in it. Where the machine's own choice is
that dtype, the plain session ran them so, and nothing is left to run.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest
import torch

from grounded_seg.device import choose
from grounded_seg.errors import DeviceError
from grounded_seg.settings import Precision

ENVIRONMENT = "GROUNDED_SEG_TEST_DTYPE"
_CACHE_KEY = "grounded-seg/chooses-a-dtype"


class AutoDtype:
    """A pytest plugin that stands in for the choice of a dtype."""

    def __init__(self, forced: torch.dtype | None) -> None:
        self._forced = forced
        self._own_choice = choose._fastest_dtype
        self._own_question = torch.cpu._is_amx_tile_supported
        self._n_choices = 0
        self._test: str | None = None
        self._tests: set[str] = set()
        self._fixtures: set[str] = set()
        self._fixtures_of: dict[str, tuple[str, ...]] = {}

    def choice(self, device: torch.device) -> torch.dtype:
        """The dtype that `auto` stands for; on a machine that a test pretends to have, the one that belongs to it."""
        if torch.cpu._is_amx_tile_supported is not self._own_question:
            return self._own_choice(device)
        self._n_choices += 1
        if self._test is not None:
            self._tests.add(self._test)
        return self._forced or self._own_choice(device)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._fixtures_of = {item.nodeid: tuple(getattr(item, "fixturenames", ())) for item in items}
        known = config.cache.get(_CACHE_KEY, None) if config.cache is not None else None
        if self._forced is None or known is None:
            return
        left_out = [item for item in items if item.nodeid not in set(known)]
        items[:] = [item for item in items if item.nodeid in set(known)]
        config.hook.pytest_deselected(items=left_out)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
        before = self._n_choices
        value = yield
        # What a fixture of several tests chose, each of them depends on.
        if self._n_choices > before and fixturedef.scope != "function":
            self._fixtures.add(fixturedef.argname)
        return value

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._test = item.nodeid
        outcome = yield
        self._test = None
        return outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        told = {test for test, names in self._fixtures_of.items() if self._fixtures & set(names)}
        if hasattr(session.config, "workeroutput"):
            # One of several processes, which share the tests; the first process puts together what each of them tells.
            session.config.workeroutput[_CACHE_KEY] = (sorted(self._tests | told), sorted(self._fixtures_of))
            return
        self._tests |= told
        cache = session.config.cache
        if self._forced is None and cache is not None:
            # A part of the suite says nothing of the rest.
            earlier = set(cache.get(_CACHE_KEY, None) or ()) - self._fixtures_of.keys()
            cache.set(_CACHE_KEY, sorted(earlier | self._tests))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what one of several processes tells; pytest-xdist calls this, whose objects have no types."""
        tests, collected = node.workeroutput.get(_CACHE_KEY, ((), ())) if hasattr(node, "workeroutput") else ((), ())
        self._tests |= set(tests)
        self._fixtures_of |= dict.fromkeys(collected, ())


def pytest_configure(config: pytest.Config) -> None:
    """Put the plugin in place of the choice, for the whole session."""
    name = os.environ.get(ENVIRONMENT)
    forced = None if name is None else choose.dtype_named(Precision(name))
    if forced is not None:
        try:
            choose._check_runs(forced, torch.device("cpu"))
        except DeviceError as error:
            pytest.exit(str(error), returncode=0)
        known = config.cache.get(_CACHE_KEY, None) if config.cache is not None else None
        if known is not None and forced == choose._fastest_dtype(torch.device("cpu")):
            pytest.exit(
                f"{name} is what `auto` stands for here: the plain session ran these tests with it", returncode=0
            )
    plugin = AutoDtype(forced)
    choose._fastest_dtype = plugin.choice
    config.pluginmanager.register(plugin)
