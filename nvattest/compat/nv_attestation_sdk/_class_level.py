"""Methods that work on an instance and, for old code, on the class: then on one default instance."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R", covariant=True)  # noqa: PLC0105 - the name that typing's own examples use


class _Callable(Protocol[P, R]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


class class_or_instance(Generic[P, R]):  # noqa: N801 - used like classmethod
    """``client.x()`` works on ``client``; ``Attestation.x()`` on ``Attestation.default()``."""

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object | None, owner: Any) -> _Callable[P, R]:
        return MethodType(self._function, owner.default() if instance is None else instance)
