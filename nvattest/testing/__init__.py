"""Simulated confidential GPUs and switches, for tests and demos without hardware. Public: the names in ``__all__``.

    from nvattest.testing import Platform

    platform = Platform.build("hopper-8-ppcie")
    appraisal = platform.appraise(nonce)      # collected now and verified
    token = platform.token(nonce)             # what a verifier issues for it, under platform.token_key
    evidence, collateral = platform.evidence(nonce), platform.collateral()

In pytest the fixture ``nvattest_platform`` builds them; ``BuildPlatform`` is its type.

Simulated devices chain to a test root that no default configuration trusts. What a platform can be told to lie about is
in ``LIES``; ``parse_fault("gpu0:measurement=9")`` reads one lie. ``SimulatedGuest("tdx")`` is the CPU's side:
quotes under a test root. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvattest.testing.cpu import GUESTS as GUESTS
    from nvattest.testing.cpu import SimulatedGuest as SimulatedGuest
    from nvattest.testing.device import SimulatedDevice as SimulatedDevice
    from nvattest.testing.lies import GUEST_LIES as GUEST_LIES
    from nvattest.testing.lies import LIES as LIES
    from nvattest.testing.lies import Lie as Lie
    from nvattest.testing.lies import LieSpec as LieSpec
    from nvattest.testing.lies import Scope as Scope
    from nvattest.testing.lies import parse_fault as parse_fault
    from nvattest.testing.platform import DEFAULT_CLOCK as DEFAULT_CLOCK
    from nvattest.testing.platform import DEFAULT_NONCE as DEFAULT_NONCE
    from nvattest.testing.platform import Platform as Platform
    from nvattest.testing.platform import SimulatedFleet as SimulatedFleet
    from nvattest.testing.pytest_plugin import BuildPlatform as BuildPlatform
    from nvattest.testing.silicon import PLATFORMS as PLATFORMS

# Constants first, then by name.
_HOMES = {
    "DEFAULT_CLOCK": "platform",
    "DEFAULT_NONCE": "platform",
    "GUESTS": "cpu",
    "GUEST_LIES": "lies",
    "LIES": "lies",
    "PLATFORMS": "silicon",
    "BuildPlatform": "pytest_plugin",
    "Lie": "lies",
    "LieSpec": "lies",
    "Platform": "platform",
    "Scope": "lies",
    "SimulatedDevice": "device",
    "SimulatedFleet": "platform",
    "SimulatedGuest": "cpu",
    "parse_fault": "lies",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
