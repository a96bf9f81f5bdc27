"""A world in which everything is there: a simulated platform, its driver libraries, and NVIDIA's services on loopback.

    with World(Platform.build("hopper-8-ppcie", clock=now)) as world:
        subprocess.run(["nvattest", "attest"], env=world.environment())

What runs in it goes the whole live path: the real NVML binding loads our library, the library asks this process over a
socket, and the RIM, OCSP and NRAS clients talk to loopback. Nothing of a world is on disk but the cached libraries: its
socket is in Linux' abstract namespace and its trust anchors in an anonymous file, so that nothing outlives the process,
however it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.testing.native.build import DriverLibraries
    from nvattest.testing.native.server import DriverServer
    from nvattest.testing.platform import Platform
    from nvattest.testing.services import Services

__all__ = ["World", "library_cache"]


def library_cache() -> str:
    """Where the compiled driver libraries are kept: they are the same for every world."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "nvattest", "simulated-driver")


class World:
    """Use it as a context manager.

    Args:
        platform: what is simulated; its clock should be now, for live revocation answers to be in their window.
        driver_faults: faults of driver calls, as ``nvmlDeviceGetName@2=hang`` (see ``Fault.parse``).
        service_faults: faults of the services, see ``nvattest.testing.services``.
        cache: folder of the compiled libraries.

    Raises:
        InputError: no compiler (``no-compiler``), or a fault that cannot be read.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        driver_faults: Iterable[str] = (),
        service_faults: Iterable[str] = (),
        cache: str | None = None,
    ) -> None:
        self.platform = platform
        self._driver_faults = tuple(driver_faults)
        self._service_faults = tuple(service_faults)
        self._cache = cache or library_cache()
        self._stack = ExitStack()
        self._libraries: DriverLibraries | None = None
        self._driver: DriverServer | None = None
        self._services: Services | None = None
        self._anchors = ""

    def __enter__(self) -> World:
        from nvattest.testing.native import DriverServer, Fault, build_driver_libraries
        from nvattest.testing.services import Services

        with ExitStack() as stack:
            self._libraries = build_driver_libraries(self._cache)
            faults = dict(Fault.parse(text) for text in self._driver_faults)
            self._driver = stack.enter_context(
                DriverServer(self.platform, state=self.platform.driver_state, faults=faults)
            )
            self._services = stack.enter_context(Services(self.platform, faults=self._service_faults))
            self._anchors = self._anonymous_file(stack, self.platform.anchors_pem)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def driver(self) -> DriverServer:
        """The driver's side: its calls, its faults, its ready state."""
        if self._driver is None:
            raise InputError("the world has not been entered", code="world")
        return self._driver

    @property
    def services(self) -> Services:
        """The services' side: their requests and their faults."""
        if self._services is None:
            raise InputError("the world has not been entered", code="world")
        return self._services

    def variables(self) -> dict[str, str]:
        """The environment variables that make the world: library path, URLs, trust anchors."""
        if self._libraries is None:
            raise InputError("the world has not been entered", code="world")
        services = self.services
        return {
            **self.driver.environment(self._libraries, {}),
            "NVAT_RIM_SERVICE_BASE_URL": services.rim_url,
            "NVAT_OCSP_BASE_URL": services.ocsp_url,
            "NVAT_NRAS_BASE_URL": services.nras_url,
            "NVATTEST_TRUST_ANCHORS": self._anchors,
        }

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment for a program in this world; ``base`` is this process's unless given."""
        environment = dict(os.environ if base is None else base)
        variables = self.variables()
        known = environment.get("LD_LIBRARY_PATH")
        if known:
            variables["LD_LIBRARY_PATH"] += os.pathsep + known
        return environment | variables

    @staticmethod
    def _anonymous_file(stack: ExitStack, content: bytes) -> str:
        if not sys.platform.startswith("linux"):
            raise InputError(
                "a simulated world needs Linux", code="world", hint="the in-process simulation works anywhere"
            )
        descriptor = os.memfd_create("nvattest-trust-anchors")
        stack.callback(os.close, descriptor)
        os.write(descriptor, content)
        return f"/proc/{os.getpid()}/fd/{descriptor}"
