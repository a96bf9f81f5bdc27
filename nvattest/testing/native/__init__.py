"""A driver at the C interface for machines without one: our own ``libnvidia-ml.so.1`` and ``libnvidia-nscq.so.2``.

``build_driver_libraries`` compiles the libraries, ``DriverServer`` answers their calls from a simulated platform, and
``place_driver_libraries`` puts them where a program without an environment finds both.
"""

from __future__ import annotations

from nvattest.testing.native.build import DriverLibraries, build_driver_libraries, place_driver_libraries
from nvattest.testing.native.server import Call, DriverServer, end_with_parent
from nvattest.testing.native.state import DriverState, Fault

__all__ = [
    "Call",
    "DriverLibraries",
    "DriverServer",
    "DriverState",
    "Fault",
    "build_driver_libraries",
    "end_with_parent",
    "place_driver_libraries",
]
