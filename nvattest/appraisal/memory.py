"""What a verifier keeps in mind: bounded maps from everything that a result depends on to the result."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar, cast

from nvattest.appraisal.check import Check, CheckList, Outcome

T = TypeVar("T")
R = TypeVar("R")


class Memory(Generic[T]):
    """A bounded map; the least recently used entry goes first. What raises is not kept."""

    __slots__ = ("_entries", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> T | None:
        """What was kept under this key."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._entries[key] = value
        return value

    def put(self, key: Hashable, value: T) -> T:
        """Keep a value, which must not be None; returns it."""
        self._entries[key] = value
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return value

    def recall(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of this key, made now if it is not there. ``key`` has to hold all that ``make`` depends on."""
        known = self.get(key)
        return known if known is not None else self.put(key, make())


class _Passed(NamedTuple):
    checks: tuple[Check, ...]
    result: object


class Passes:
    """Steps of the story that passed, to be told again for the next report that gives them the same to look at.

    Only steps of which every check passed are kept. All others are taken anew each time: what they missed may be there
    by then, and no failure is worth saving time on.
    """

    __slots__ = ("_memory",)

    def __init__(self, size: int) -> None:
        self._memory: Memory[_Passed] = Memory(size)

    def __len__(self) -> int:
        return len(self._memory)

    def tell(self, key: Hashable, checks: CheckList, steps: Callable[[], R]) -> R:
        """Take ``steps``, which record into ``checks``; or record what they did when they passed on the same key."""
        known = self._memory.get(key)
        if known is not None:
            checks.checks.extend(known.checks)
            return cast("R", known.result)
        before = len(checks.checks)
        result = steps()
        made = tuple(checks.checks[before:])
        if made and all(check.outcome is Outcome.PASS for check in made):
            self._memory.put(key, _Passed(made, result))
        return result
