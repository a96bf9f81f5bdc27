"""Noting which functions a run calls, in order: in this process, or in a hook that imports this file first."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from types import CodeType, FrameType
from typing import Any


def resolve(step: str) -> Any:
    """The function or class that ``module:name`` names below ``nvattest``."""
    module, _, name = step.partition(":")
    return reduce(getattr, name.split("."), import_module(f"nvattest.{module}"))


def codes(steps: Iterable[str]) -> dict[CodeType, str]:
    """The code of each step: a call of it is seen by that."""
    found = {}
    for step in steps:
        target = inspect.unwrap(resolve(step))
        found[(target.__init__ if inspect.isclass(target) else target).__code__] = step
    return found


def _profiler(watched: Mapping[CodeType, str], note: Callable[[str], None]) -> Callable[[FrameType, str, Any], None]:
    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in watched:
            note(watched[frame.f_code])

    return profile


@contextmanager
def calls(steps: Iterable[str]) -> Iterator[list[str]]:
    """The calls of these steps, in this thread and in those that it starts, in order."""
    noted: list[str] = []
    profiler = _profiler(codes(steps), noted.append)
    threading.setprofile(profiler)
    sys.setprofile(profiler)
    try:
        yield noted
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def into(path: str, steps: Iterable[str]) -> None:
    """Append a line to this file for each call of a step in this process, from now on."""

    def note(step: str) -> None:
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{step}\n")

    profiler = _profiler(codes(steps), note)
    threading.setprofile(profiler)
    sys.setprofile(profiler)
