"""A world in which everything is there: a simulated platform, its driver libraries, and NVIDIA's services on loopback.

    with World(Platform.build("hopper-8-ppcie", clock=now)) as world:
        subprocess.run(["nvattest", "attest"], env=world.environment())

What runs in it goes the whole live path: the real NVML binding loads our library, the library asks this process over a
socket, and the RIM, OCSP and NRAS clients talk to loopback. Of a world only the compiled libraries and its own cache of
collateral are on disk. Its socket is in Linux' abstract namespace and its trust anchors are in an anonymous file. The
cache is removed with the world; where the process was killed, the next world removes it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nvattest._system import TrustedFolder
from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.testing.cpu import SimulatedGuest
    from nvattest.testing.driver import DriverLibraries, DriverServer
    from nvattest.testing.platform import Platform
    from nvattest.testing.services import Services

# What a user set for real devices and services: a setting, a key or a root of TLS must change nothing in a world.
# NVIDIA's container images set many more names that begin with NV_, for what they hold: those are left alone.
_OF_THE_USER = re.compile(
    r"NV_(ALLOW|ATTESTATION|NRAS|OCSP|RIM)_\w*|(NVAT|NVATTEST)_\w*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.ASCII
)
_NO_PROXY = ("no_proxy", "NO_PROXY")


def library_cache() -> str:
    """Where the compiled driver libraries are kept: they are the same for every world.

    Raises:
        InputError: the user has no home (``cache-folder``).
    """
    from nvattest.collateral.cache import default_cache_folder

    base = default_cache_folder()
    if base is None:
        raise InputError("a user without a home has no cache", code="cache-folder", hint="set XDG_CACHE_HOME")
    return os.path.join(base, "simulated-driver")


@dataclass(eq=False)
class World:
    """Use it as a context manager.

    Args:
        platform: what is simulated; its clock should be now, for live revocation answers to be in their window.
        driver_faults: faults of driver calls, as ``nvmlDeviceGetName@2=hang`` (see ``Fault.parse``).
        service_faults: faults of the services, see ``nvattest.testing.services``.
        delay: seconds before each answer of a service, by its name: ``rim``, ``ocsp``, ``nras``, ``jwks``, ``pcs``...
        service_key: the bearer key that RIM service, responder and remote service demand, if any.
        guest: whose CPU Intel's or AMD's service knows; without one that service has nothing.
        cache: folder of the compiled libraries, and below it the caches of the worlds. By default it is
            ``library_cache()``, or a temporary folder where that cannot be written or must not be believed.

    Attributes:
        driver: the driver's side: its calls, its faults, its ready state.
        services: the services' side: their requests and their faults.
        libraries: the compiled driver libraries.

    Raises:
        InputError: no compiler (``no-compiler``), or a fault that cannot be read.
    """

    platform: Platform
    _: KW_ONLY
    driver_faults: Iterable[str] = ()
    service_faults: Iterable[str] = ()
    delay: Mapping[str, float] = field(default_factory=dict)
    service_key: str = ""
    guest: SimulatedGuest | None = None
    cache: str | None = None
    driver: DriverServer = field(init=False)
    services: Services = field(init=False)
    libraries: DriverLibraries = field(init=False)
    _anchors: str = field(init=False)
    _collateral: str = field(init=False)
    _stack: ExitStack = field(init=False)

    def __enter__(self) -> World:
        from nvattest.testing.driver import DriverServer, build_driver_libraries
        from nvattest.testing.driver_answers import Fault
        from nvattest.testing.services import Services, wall_clock

        with ExitStack() as stack:
            try:
                cache = self.cache or library_cache()
                self.libraries = build_driver_libraries(cache)
            except InputError as error:
                if self.cache is not None or error.code != "cache-folder":
                    raise
                # The home of another user, as under sudo and in the containers of many a CI.
                cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="nvattest-"))
                self.libraries = build_driver_libraries(cache)
            driver = DriverServer(
                self.platform, state=self.platform.driver_state, faults=dict(map(Fault.parse, self.driver_faults))
            )
            self.driver = stack.enter_context(driver)
            services = Services(
                self.platform,
                guest=self.guest,
                faults=self.service_faults,
                delay=self.delay,
                service_key=self.service_key,
                now=wall_clock,
            )
            self.services = stack.enter_context(services)
            self._anchors = _anonymous_file(stack, self.platform.anchors_pem)
            self._collateral = _own_cache(stack, os.path.join(os.path.abspath(cache), "worlds"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def variables(self) -> dict[str, str]:
        """The environment variables that make the world: library path, URLs, trust anchors, the cache."""
        services = self.services
        return {
            **self.driver.environment(self.libraries, {}),
            "NVAT_RIM_SERVICE_BASE_URL": services.rim_url,
            "NVAT_OCSP_BASE_URL": services.ocsp_url,
            "NVAT_NRAS_BASE_URL": services.nras_url,
            "NVATTEST_PCS_URL": services.maker_url,
            "NVATTEST_KDS_URL": services.maker_url,
            # The same for programs on NVIDIA's Python packages, which have whole URLs and would ask NVIDIA otherwise.
            "NV_RIM_URL": f"{services.rim_url}/v1/rim/",
            "NV_OCSP_URL": services.ocsp_url,
            "NV_NRAS_GPU_URL": f"{services.nras_url}/v3/attest/gpu",
            "NV_NRAS_NVSWITCH_URL": f"{services.nras_url}/v3/attest/switch",
            "NVATTEST_TRUST_ANCHORS": self._anchors,
            "NVATTEST_CACHE_DIR": self._collateral,
            # No proxy reaches the loopback of this machine.
            **dict.fromkeys(_NO_PROXY, "127.0.0.1,localhost"),
        }

    @staticmethod
    def foreign_variables(base: Mapping[str, str]) -> list[str]:
        """The names in ``base`` that no program in a world may see: settings, keys and TLS roots for real services."""
        return sorted(filter(_OF_THE_USER.fullmatch, base))

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment for a program in this world: ``base`` without ``foreign_variables``, with ``variables``.

        ``base`` is this process's environment unless given. A setting for the program alone is added to the result.
        """
        known = dict(os.environ if base is None else base)
        variables = self.variables()
        if path := known.get("LD_LIBRARY_PATH"):
            variables["LD_LIBRARY_PATH"] += os.pathsep + path
        # Programs read either spelling, so each has the entries of both.
        exempt = [entry for name in _NO_PROXY for entry in known.get(name, "").split(",") if entry.strip()]
        hosts = ",".join(dict.fromkeys([variables["no_proxy"], *exempt]))
        variables |= dict.fromkeys(_NO_PROXY, hosts)
        for name in self.foreign_variables(known):
            del known[name]
        return known | variables


def _anonymous_file(stack: ExitStack, content: bytes) -> str:
    if not sys.platform.startswith("linux"):
        raise InputError("a simulated world needs Linux", code="world", hint="the in-process simulation works anywhere")
    descriptor = os.memfd_create("nvattest-trust-anchors")
    stack.callback(os.close, descriptor)
    os.write(descriptor, content)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _own_cache(stack: ExitStack, base: str) -> str:
    """A new folder below ``base`` until ``stack`` closes. The lock on it ends with this process, however it ends."""
    try:
        with TrustedFolder(base, make=True) as above:
            above.take(math.inf)
            for name in above.names():
                with contextlib.suppress(OSError), TrustedFolder(name, inside=above) as left:
                    if left.take(0):
                        shutil.rmtree(left.path)
            folder = tempfile.mkdtemp(prefix="world-", dir=base)
            stack.enter_context(TrustedFolder(os.path.basename(folder), inside=above)).take(0)
    except OSError as error:
        raise InputError(
            f"a simulated world cannot have its cache below {base}: {error}", code="cache-folder",
            hint="name a folder that can be written; nvattest simulate takes it from XDG_CACHE_HOME",
        ) from error  # fmt: skip
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


_FOLDERS: Final = (
    *("etc/nvattest", "run", "var/log", "dev", "proc/sys/kernel/random", "proc/driver/nvidia", "tmp"),
    "sys/bus/pci/devices",
)
_GPU, _SWITCH = "0x030200", "0x068000"


class GuestFolder:
    """A guest in a folder: what ``nvattest-hook --root FOLDER`` finds at the absolute paths of a real one.

    It has the devices of ``platform``, whose driver answers at ``address``. The hook loads the compiled driver library
    from the folder; the library finds the simulation without an environment.

    Args:
        root: the folder; it may be there, and must be empty then.
        bundle: put a bundle with all collateral beside the configuration.

    ``hook_path`` is the program in its hook folder; it runs the package of this interpreter on this folder.

    Raises:
        InputError: the folder is not empty, or cannot be written (``folder``).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        platform: Platform,
        libraries: DriverLibraries,
        *,
        address: str,
        bundle: bool = True,
    ) -> None:
        from nvattest.testing.driver import place_driver_libraries

        self.folder = os.path.abspath(os.fspath(root))
        self.platform = platform
        try:
            if os.path.isdir(self.folder) and os.listdir(self.folder):
                raise InputError(f"{self.folder} is not empty", code="folder")
            for name in _FOLDERS:
                os.makedirs(self._at(name), exist_ok=True)
            self._write("dev/kmsg", "")
            self._write("proc/cmdline", "console=hvc0 agent.log=info\n")
            self.boot("1c4b3f0e-4b0a-4f5c-9a39-3c4d0a1f7b11")
            self._write("proc/driver/nvidia/version", "NVRM version: simulated\n")
            for first, kind, devices in ((1, _GPU, platform.gpus), (0x41, _SWITCH, platform.switches)):
                for bus in range(first, first + len(devices)):
                    self.plug(f"0000:{bus:02x}:00.0", kind)
            self.load_driver()
            place_driver_libraries(libraries, self._at("usr/lib/simulated"), address=address)
            self.hook_path = self._place_hook()
            self._write("etc/nvattest/anchors.pem", platform.anchors_pem.decode())
            if bundle:
                self.write_bundle()
            self.settings: dict[str, Any] = {
                "trust_anchors": "/etc/nvattest/anchors.pem",
                "collateral": {"network": False},
                "driver": {
                    "nvml": "/usr/lib/simulated/libnvidia-ml.so.1",
                    "nscq": "/usr/lib/simulated/libnvidia-nscq.so.2",
                    "wait_hook": 0.2,
                    "wait_init": 0.2,
                },
            }
            self.configure()
        except OSError as error:
            raise InputError(f"{self.folder}: {error.strerror or error}", code="folder") from None

    def configure(self, **settings: Any) -> None:
        """Write the configuration again with these settings; a table is a mapping, and keeps its other keys."""
        for key, value in settings.items():
            known = self.settings.get(key)
            self.settings[key] = {**(known or {}), **value} if isinstance(value, Mapping) else value
        lines: list[str] = []
        # Plain settings stand before the tables.
        for name, setting in sorted(self.settings.items(), key=lambda item: isinstance(item[1], dict)):
            table = setting if isinstance(setting, dict) else {name: setting}
            lines += [f"[{name}]"] if setting is table else []
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        self._write("etc/nvattest/hook.toml", "\n".join(lines) + "\n")

    def boot(self, boot_id: str) -> None:
        """Another boot: its number."""
        self._write("proc/sys/kernel/random/boot_id", boot_id + "\n")

    def plug(self, address: str, kind: str) -> None:
        """One more device of NVIDIA's on the PCI bus, of this class."""
        folder = f"sys/bus/pci/devices/{address}"
        os.mkdir(self._at(folder))
        for name, value in (("vendor", "0x10de"), ("device", "0x2331"), ("class", kind)):
            self._write(f"{folder}/{name}", value + "\n")

    def load_driver(self) -> None:
        """Load the driver, again where it is loaded."""
        module = self._at("sys/module/nvidia")
        if os.path.isdir(module):
            # Kept, for a new folder with the inode of the old one would look like the same driver.
            os.rename(module, self._at(f"tmp/unloaded-{time.monotonic_ns()}"))
        os.makedirs(module)
        self._write("sys/module/nvidia/version", "580.95.05\n")

    def write_bundle(self) -> None:
        """All collateral of the platform, as it is now."""
        self._write("etc/nvattest/bundle.json", json.dumps(self.platform.bundle()))

    def forget_outputs(self) -> None:
        """Remove what the hook wrote to ``/run/nvattest``, as a boot does."""
        shutil.rmtree(self._at("run/nvattest"), ignore_errors=True)

    def _place_hook(self) -> str:
        # A regular file with a mode that an agent looks for, which runs the package of this interpreter.
        hook = "usr/share/oci/hooks/prestart/nvattest-hook"
        path = self._at(hook)
        os.makedirs(os.path.dirname(path))
        self._write(
            hook,
            f"#!{sys.executable} -I\nimport sys\nsys.argv[1:1] = ['--root', {self.folder!r}]\n"
            "from nvattest.guest import main\nmain()\n",
        )
        os.chmod(path, 0o755)  # noqa: S103 - a program that everyone may run
        # As in the guest of a script: its interpreter is there.
        interpreter = self._at(sys.executable.lstrip("/"))
        os.makedirs(os.path.dirname(interpreter))
        os.symlink(sys.executable, interpreter)
        return path

    def _at(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _write(self, name: str, text: str) -> None:
        with open(self._at(name), "w", encoding="utf-8") as file:
            file.write(text)
