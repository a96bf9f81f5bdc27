"""Every place in the file system that the hook reads or writes. Nothing else in ``guest/`` names one.

``nvattest._pci`` has those of the devices and their driver.
"""

from __future__ import annotations

import os
from typing import Final, final

__all__ = ["Paths", "own_configuration"]


def own_configuration(root: str, program: str) -> str:
    """The configuration of the image that the program lies in, or "": an image that is mounted brings its own.

    ``program`` is the path of the program as the kernel knows it. Of an extension image below ``/run/kata-extensions``
    nothing is in the guest's ``/etc``, and an agent gives its hooks no ``--config``.
    """
    image, found, rest = program.partition(f"{Paths.HOOKS}/prestart/")
    if not found or not image or "/" in rest:
        return ""
    configuration = image + Paths.CONFIG
    # A link that leads nowhere counts: then the hook fails, for its image was meant to have a configuration.
    return configuration if os.path.lexists(root + configuration) else ""


@final
class Paths:
    """The places, below ``root``: "" in a guest, a folder in a test. The root only makes paths longer.

    ``configuration`` is the configuration as a path of the guest: the usual one, or the one that ``--config`` names.
    ``RUN`` is the folder of all outputs. It has the record of the last run (``STATE``, ``schemas/hook-state-1.json``);
    the token, which exists only while its verdict stands (``TOKEN``), and the public key to verify it with (``JWKS``);
    and every check of the last appraisal, also of one that failed (``APPRAISAL``).
    """

    __slots__ = ("configuration", "root")

    CONFIG: Final = "/etc/nvattest/hook.toml"
    RUN: Final = "/run/nvattest"
    # In the run folder.
    STATE: Final = "state.json"
    TOKEN: Final = "token.json"  # noqa: S105 - a file name
    APPRAISAL: Final = "appraisal.json"
    JWKS: Final = "jwks.json"
    LOG: Final = "/var/log/nvattest/hook.log"
    # The usual guest_hook_path. The guest layer puts the program below it.
    HOOKS: Final = "/usr/share/oci/hooks"
    # NVRC mounts each extension image here, below its name.
    EXTENSIONS: Final = "/run/kata-extensions"
    AGENT: Final = "/usr/bin/kata-agent"

    def __init__(self, root: str = "", config: str = "") -> None:
        self.root = root.rstrip("/")
        self.configuration = config or self.CONFIG

    def at(self, path: str) -> str:
        """An absolute path of the guest, below the root."""
        return self.root + path

    @property
    def config(self) -> str:
        """The configuration; the usual one need not exist."""
        return self.at(self.configuration)

    @property
    def bundle(self) -> str:
        """The collateral where the configuration names none: beside it, so that an image can bring both."""
        return self.at(f"{self.configuration.rpartition('/')[0]}/bundle.json")

    @property
    def run(self) -> str:
        """The folder of all outputs; on a memory file system, so that no verdict outlives the boot."""
        return self.at(self.RUN)

    @property
    def kmsg(self) -> str:
        """The kernel's log, which the host sees."""
        return self.at("/dev/kmsg")

    @property
    def boot_id(self) -> str:
        """A number that the kernel makes anew at each boot."""
        return self.at("/proc/sys/kernel/random/boot_id")

    @property
    def command_line(self) -> str:
        """The kernel's command line."""
        return self.at("/proc/cmdline")
