"""A guest for the hook: a folder that looks like one to it, with a simulated driver behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvattest.testing.driver import DriverLibraries

from .hook_world import HookWorld


@pytest.fixture
def world(libraries: DriverLibraries, tmp_path: Path) -> Iterator[Callable[..., HookWorld]]:
    """``world("hopper-1", lies=[...])`` makes a guest; all of them are closed when the test ends."""
    made: list[HookWorld] = []

    def make(platform: str = "hopper-1", **options: Any) -> HookWorld:
        made.append(HookWorld(tmp_path / f"guest-{len(made)}", libraries, platform, **options))
        return made[-1]

    yield make
    for item in made:
        item.close()
