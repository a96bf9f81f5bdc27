"""The places of the hook, and its configuration.

Every place in the file system that the hook reads or writes is in ``Paths``; nothing else in ``guest/`` names one.
``nvattest._system`` has those of the devices and their driver.

The configuration (``schemas/hook-config-1.json``) is ``/etc/nvattest/hook.toml``, without which all defaults hold, or
the file that ``--config`` names, which has to be there.

The guest's measurement covers it. An unknown key or a value out of range is an error, since what its author wanted is
not known: nothing is attested, and the GPUs stay not ready.

Every run reads it, also one that uses a verdict again: a record on disk says nothing that the configuration decides.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple, final

from nvattest._folder import open_now
from nvattest.errors import InputError
from nvattest.guest.arguments import Stage

if TYPE_CHECKING:
    from nvattest._system import PciDevices

LOOK_SECONDS: Final = 2.0
"""How often the watch looks whether the devices are still those of the verdict, also while it attests them again."""

EARLIEST: Final = "2026-11-01T00:00:00Z"
"""No clock that shows an earlier instant is right: the program is younger. An image may name a later one.

``nvattest doctor`` and the build of the guest layer take it from here.
"""

_MAXIMUM: Final = 256 * 1024
_CLOSING: Final = 1.0
_CLOSING_SHARE: Final = 0.1

Check = Callable[[object], object]


# --- the places -------------------------------------------------------------------------------------------------------


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
    every check of the last appraisal, also of one that failed (``APPRAISAL``); and where the configuration asks for it
    the CPU's quote over the key and the evidence of that token (``QUOTE``).
    """

    __slots__ = ("configuration", "root")

    CONFIG: Final = "/etc/nvattest/hook.toml"
    RUN: Final = "/run/nvattest"
    # In the run folder.
    STATE: Final = "state.json"
    TOKEN: Final = "token.json"  # noqa: S105 - a file name
    APPRAISAL: Final = "appraisal.json"
    JWKS: Final = "jwks.json"
    QUOTE: Final = "quote.json"
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


# --- the configuration ------------------------------------------------------------------------------------------------


class HookConfig(NamedTuple):
    """The file's values; ``examples/kata/hook.toml`` says what each means, and the schema what it may be.

    Names are those of the file, with the table before the key; paths are of the guest. A named tuple, as everywhere on
    the fast path: importing ``dataclasses`` takes longer than all the rest.
    """

    expected_gpus: int | None = None
    expected_switches: int | None = None
    allow_no_gpu: bool = False
    on_failure: str = "start"
    policy: str | None = None
    trust_anchors: str | None = None
    budget_hook: float = 8.0
    budget_init: float = 120.0
    budget_watch: float = 120.0
    collateral_bundle: str | None = None
    collateral_cache: str | None = None
    collateral_network: bool = True
    collateral_rim_url: str | None = None
    collateral_ocsp_url: str | None = None
    collateral_service_key_file: str | None = None
    collateral_ca_file: str | None = None
    token_claims_version: str = "4.0"  # noqa: S105 - a version
    token_lifetime: int = 3600
    token_issuer: str | None = None
    tee_required: bool = False
    reuse_max_age: int = 3600
    watch_interval: float = 600.0
    watch_retry: float = 60.0
    clock_not_before: str | None = None
    clock_wait_hook: float = 1.0
    clock_wait_init: float = 20.0
    driver_nvml: str | None = None
    driver_nscq: str | None = None
    driver_persistence: str = "enable"
    driver_wait_hook: float = 2.0
    driver_wait_init: float = 60.0
    log_file: str = Paths.LOG
    log_max_bytes: int = 1024 * 1024
    log_keep: int = 2
    log_kmsg: bool = True


class Settings(NamedTuple):
    """A configuration with its paths below the root, or the reason why there is none. Nothing is attested then.

    ``digest`` is that of the bytes it was read from, as ``digest_file`` gives it: None without a file.
    """

    paths: Paths
    config: HookConfig = HookConfig()
    error: InputError | None = None
    digest: str | None = None

    @property
    def inputs(self) -> list[str]:
        """The files that decide; a verdict stands only while they stay as they are.

        The bundle is one of them: a new one may have been put there for a revocation that it has.
        """
        named = (self.config.policy, self.config.trust_anchors)
        bundle = self.place(self.config.collateral_bundle) or self.paths.bundle
        return [self.paths.config, *(self.paths.at(path) for path in named if path is not None), bundle]

    @property
    def on_failure(self) -> str:
        """A configuration that cannot be read blocks: it may have been meant to."""
        return "block" if self.error is not None else self.config.on_failure

    @property
    def reuse_seconds(self) -> float:
        """How long a verdict serves later containers: never longer than its token lives."""
        return min(self.config.reuse_max_age, self.config.token_lifetime)

    @property
    def nvml(self) -> str | None:
        """The NVML library, where it is named."""
        return self.place(self.config.driver_nvml)

    def no_gpu_is_right(self, pci: PciDevices | None) -> bool:
        """Whether the configuration says that no GPU is expected and the bus shows none, nor a switch."""
        return self.error is None and self.config.allow_no_gpu and pci is not None and not (pci.gpus or pci.switches)

    def place(self, path: str | None) -> str | None:
        """A path of the configuration, below the root."""
        return None if path is None else self.paths.at(path)

    def budget(self, stage: str) -> float:
        """Seconds that a run of this stage may take."""
        if stage == Stage.HOOK:
            return self.config.budget_hook
        return self.config.budget_watch if stage == Stage.WATCH else self.config.budget_init

    def closing(self, stage: str) -> float:
        """Seconds beyond that for taking the ready state away.

        Under an agent a second, since a hook ends before the agent gives it up; else a tenth of the budget if that is
        more, for slow drivers.
        """
        return _CLOSING if stage == Stage.HOOK else max(_CLOSING, _CLOSING_SHARE * self.budget(stage))

    def patience(self, stage: str, hook: float, other: float) -> float:
        """One of two waits: a hook has seconds, everything else has more."""
        return hook if stage == Stage.HOOK else other


def load_settings(paths: Paths) -> Settings:
    """Read the configuration; what is wrong with it is in the result. Never raises on what a file can hold."""
    try:
        with open_now(paths.config) as file:
            data = file.read(_MAXIMUM + 1)
            if data is None:
                # Of a file that has nothing to give now, and that is not waited for.
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        config = parse_config(data, source=paths.configuration)
        return Settings(paths=paths, config=config, digest=sha256(data).hexdigest())
    except FileNotFoundError as error:
        if paths.configuration == Paths.CONFIG:
            return Settings(paths=paths)
        # --config asks for other than the defaults.
        return Settings(paths=paths, error=_error(paths.configuration, f"{error.strerror}, and --config names it"))
    except OSError as error:
        return Settings(paths=paths, error=_error(paths.configuration, f"{error.strerror or error}"))
    except InputError as error:
        return Settings(paths=paths, config=_driver_only(data), error=error, digest=sha256(data).hexdigest())


def parse_config(data: bytes, *, source: str = Paths.CONFIG) -> HookConfig:
    """Read a configuration; ``source`` is the file's name, for messages.

    Raises:
        InputError: not TOML, an unknown table or key, a value of the wrong type or out of range (``hook-config``).
    """
    try:
        return _parse(_document(data, source))
    except InputError as error:
        raise _error(source, error.message) from None


def _parse(document: dict[str, object]) -> HookConfig:
    values: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            if name not in KEYS or name == "":
                raise InputError(f"there is no table [{name[:80]}]; there are {', '.join(sorted(filter(None, KEYS)))}")
            values |= {f"{name}_{key}": _checked(name, key, item) for key, item in value.items()}
        else:
            values[name] = _checked("", name, value)
    config = HookConfig(**values)  # type: ignore[arg-type]
    if config.allow_no_gpu and (config.expected_gpus or config.expected_switches):
        raise InputError("allow_no_gpu contradicts the expected numbers")
    return config


def _document(data: bytes, source: str = "") -> dict[str, object]:
    from nvattest._documents import load_toml

    return load_toml(data, source=source, maximum=_MAXIMUM)


def _driver_only(data: bytes) -> HookConfig:
    # The ready state has to be taken away through the right library even when the rest of the file is of no use.
    try:
        table = _document(data).get("driver")
        value = table.get("nvml") if isinstance(table, dict) else None
        return HookConfig(driver_nvml=str(_path(value))) if value is not None else HookConfig()
    except InputError:
        return HookConfig()


def _checked(table: str, key: str, value: object) -> object:
    where = f"{table}.{key}" if table else key
    check = KEYS[table].get(key)
    if check is None:
        place = f"[{table}]" if table else "the top level"
        raise InputError(f"unknown key {where[:80]!r}; {place} has {', '.join(sorted(KEYS[table]))}")
    try:
        return check(value)
    except InputError as error:
        raise InputError(f"{where}: {error.message}") from None


def _error(source: str, message: str) -> InputError:
    return InputError(
        # Those about the syntax have it.
        message if message.startswith(f"{source}: ") else f"{source}: {message}",
        code="hook-config",
        hint="every key is explained in examples/kata/hook.toml; nvattest hook check reads the file too",
    )


def _integer(low: int, high: int) -> Check:
    def check(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"expected a whole number from {low} to {high}, found {value!r}"[:200])
        return value

    return check


def _seconds(low: float, high: float, why: str = "") -> Check:
    def check(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            found = f"{value!r}"[:40]
            raise InputError(f"expected a number of seconds from {low:g} to {high:g}{why}, found {found}")
        return float(value)

    return check


def _boolean(value: object) -> object:
    if not isinstance(value, bool):
        raise InputError(f"expected true or false, found {value!r}"[:200])
    return value


def _word(*words: str) -> Check:
    def check(value: object) -> object:
        if value not in words or not isinstance(value, str):
            raise InputError(f"expected one of {', '.join(words)}, found {value!r}"[:200])
        return value

    return check


def _path(value: object) -> object:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise InputError(f"expected an absolute path, found {value!r}"[:200])
    return value


def _issuer(value: object) -> object:
    # The rule of tokens, checked here and not after an attestation.
    if not isinstance(value, str) or not 0 < len(value) <= 256 or not all("!" <= sign <= "~" for sign in value):
        raise InputError(f"expected 1 to 256 printable ASCII characters without spaces, found {value!r}"[:200])
    return value


def _url(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(("https://", "http://")) or not value.isprintable():
        raise InputError(f"expected a URL, found {value!r}"[:200])
    if any(sign in value for sign in "@?#"):
        # Not shown: it may be a password, and the host reads the log.
        raise InputError("a base URL has no user name, query or fragment")
    return value


def _instant(value: object) -> object:
    from nvattest.model import format_time, parse_time

    if not isinstance(value, str):
        raise InputError('expected an instant as a text, such as "2026-11-01T00:00:00Z"')
    return format_time(parse_time(value))


KEYS: Final[Mapping[str, Mapping[str, Check]]] = {
    "": {
        "expected_gpus": _integer(0, 64),
        "expected_switches": _integer(0, 64),
        "allow_no_gpu": _boolean,
        "on_failure": _word("start", "block"),
        "policy": _path,
        "trust_anchors": _path,
    },
    "budget": {
        "hook": _seconds(
            0.5, 8.5, " (an agent gives a hook up after 10, and taking the ready state away may last 1 more)"
        ),
        "init": _seconds(1, 1800),
        "watch": _seconds(1, 1800),
    },
    "collateral": {
        "bundle": _path,
        "cache": _path,
        "network": _boolean,
        "rim_url": _url,
        "ocsp_url": _url,
        "service_key_file": _path,
        "ca_file": _path,
    },
    "token": {"claims_version": _word("3.0", "4.0"), "lifetime": _integer(60, 86400), "issuer": _issuer},
    "tee": {"required": _boolean},
    "reuse": {"max_age": _integer(0, 86400)},
    "watch": {"interval": _seconds(1, 86400), "retry": _seconds(1, 3600)},
    "clock": {"not_before": _instant, "wait_hook": _seconds(0, 5), "wait_init": _seconds(0, 600)},
    "driver": {
        "nvml": _path,
        "nscq": _path,
        "persistence": _word("enable", "report", "ignore"),
        "wait_hook": _seconds(0, 5),
        "wait_init": _seconds(0, 600),
    },
    "log": {
        "file": _path,
        "max_bytes": _integer(4096, 64 * 1024 * 1024),
        "keep": _integer(0, 9),
        "kmsg": _boolean,
    },
}
"""Every key by table, with the check of its value; ``""`` is the top level."""
