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
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, final, get_type_hints

from nvattest._system import open_now
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
        self.root: Final = root.rstrip("/")
        self.configuration: Final = config or self.CONFIG
        # The usual one need not exist.
        self.config: Final = self.at(self.configuration)
        # The collateral where the configuration names none: beside it, so that an image can bring both.
        self.bundle: Final = self.at(f"{self.configuration.rpartition('/')[0]}/bundle.json")
        # On a memory file system, so that no verdict outlives the boot.
        self.run: Final = self.at(self.RUN)
        # The kernel's log, which the host sees; the number that it makes anew at each boot; its command line.
        self.kmsg: Final = self.at("/dev/kmsg")
        self.boot_id: Final = self.at("/proc/sys/kernel/random/boot_id")
        self.command_line: Final = self.at("/proc/cmdline")

    def at(self, path: str) -> str:
        """An absolute path of the guest, below the root."""
        return self.root + path


# --- the configuration ------------------------------------------------------------------------------------------------


def _number(low: float, high: float, *, whole: bool = False, why: str = "") -> Check:
    word, kinds = ("a whole number", (int,)) if whole else ("a number of seconds", (int, float))

    def check(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise InputError(f"expected {word} from {low} to {high}{why}, found {value!r}"[:200])
        return value if whole else float(value)

    return check


def _boolean(value: object) -> object:
    if not isinstance(value, bool):
        raise InputError(f"expected true or false, found {value!r}"[:200])
    return value


def _text(expected: str, pattern: str) -> Check:
    def check(value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise InputError(f"expected {expected}, found {value!r}"[:200])
        return value

    return check


def _word(*words: str) -> Check:
    return _text(f"one of {', '.join(words)}", "|".join(map(re.escape, words)))


_path: Final = _text("an absolute path", r"/[^\0]*")


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


# An agent gives a hook up after 10 seconds.
_HOOK: Final = _number(
    0.5, 8.5, why=" (an agent gives a hook up after 10, and taking the ready state away may last 1 more)"
)
_Flag = Annotated[bool, _boolean]
_Path = Annotated[str | None, _path]
_Url = Annotated[str | None, _url]
_Whole = Annotated[int | None, _number(0, 64, whole=True)]


class HookConfig(NamedTuple):
    """The file's values, each with its check and its default; ``examples/kata/hook.toml`` says what each means.

    Names are those of the file, with the table before the key; paths are of the guest. A named tuple, as everywhere on
    the fast path: importing ``dataclasses`` takes longer than all the rest.
    """

    expected_gpus: _Whole = None
    expected_switches: _Whole = None
    allow_no_gpu: _Flag = False
    on_failure: Annotated[str, _word("start", "block")] = "start"
    policy: _Path = None
    trust_anchors: _Path = None
    budget_hook: Annotated[float, _HOOK] = 8.0
    budget_init: Annotated[float, _number(1, 1800)] = 120.0
    budget_watch: Annotated[float, _number(1, 1800)] = 120.0
    collateral_bundle: _Path = None
    collateral_cache: _Path = None
    collateral_network: _Flag = True
    collateral_rim_url: _Url = None
    collateral_ocsp_url: _Url = None
    collateral_service_key_file: _Path = None
    collateral_ca_file: _Path = None
    token_claims_version: Annotated[str, _word("3.0", "4.0")] = "4.0"  # noqa: S105 - a version
    token_lifetime: Annotated[int, _number(60, 86400, whole=True)] = 3600
    # The rule of tokens, checked here and not after an attestation.
    token_issuer: Annotated[str | None, _text("1 to 256 printable ASCII characters without spaces", "[!-~]{1,256}")] = (
        None
    )
    tee_required: _Flag = False
    reuse_max_age: Annotated[int, _number(0, 86400, whole=True)] = 3600
    watch_interval: Annotated[float, _number(1, 86400)] = 600.0
    watch_retry: Annotated[float, _number(1, 3600)] = 60.0
    clock_not_before: Annotated[str | None, _instant] = None
    clock_wait_hook: Annotated[float, _number(0, 5)] = 1.0
    clock_wait_init: Annotated[float, _number(0, 600)] = 20.0
    driver_nvml: _Path = None
    driver_nscq: _Path = None
    driver_persistence: Annotated[str, _word("enable", "report", "ignore")] = "enable"
    driver_wait_hook: Annotated[float, _number(0, 5)] = 2.0
    driver_wait_init: Annotated[float, _number(0, 600)] = 60.0
    log_file: Annotated[str, _path] = Paths.LOG
    log_max_bytes: Annotated[int, _number(4096, 64 * 1024 * 1024, whole=True)] = 1024 * 1024
    log_keep: Annotated[int, _number(0, 9, whole=True)] = 2
    log_kmsg: _Flag = True


def _keys() -> dict[str, dict[str, Check]]:
    names = ("", "budget", "collateral", "token", "tee", "reuse", "watch", "clock", "driver", "log")
    tables: dict[str, dict[str, Check]] = {name: {} for name in names}
    for name, kind in get_type_hints(HookConfig, include_extras=True).items():
        table, _, key = name.partition("_")
        [check] = kind.__metadata__
        tables[table if table in tables else ""][key if table in tables else name] = check
    return tables


KEYS: Final[Mapping[str, Mapping[str, Check]]] = _keys()
"""Every key by table, with the check of its value; ``""`` is the top level."""


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

        The bundle is one of them: a new one may have been put there for a revocation that it has. Of a folder that is
        the manifest, which has the digests of the others.
        """
        named = (self.config.policy, self.config.trust_anchors)
        bundle = f"{self.bundle}/manifest.json" if os.path.isdir(self.bundle) else self.bundle
        return [self.paths.config, *(self.paths.at(path) for path in named if path is not None), bundle]

    @property
    def bundle(self) -> str:
        """The bundle that the configuration names, a file or a folder, or the usual one, which need not be there."""
        return self.place(self.config.collateral_bundle) or self.paths.bundle

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


def load_settings(paths: Paths) -> Settings:
    """Read the configuration; what is wrong with it is in the result. Never raises on what a file can hold."""
    data, config, error = None, HookConfig(), None
    try:
        with open_now(paths.config) as file:
            data = file.read(_MAXIMUM + 1)
        if data is None:
            # Of a file that has nothing to give now, and that is not waited for.
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        config = parse_config(data, source=paths.configuration)
    except FileNotFoundError as found:
        if paths.configuration != Paths.CONFIG:
            # --config asks for other than the defaults.
            error = _error(paths.configuration, f"{found.strerror}, and --config names it")
    except OSError as found:
        error = _error(paths.configuration, f"{found.strerror or found}")
    except InputError as found:
        config, error = _driver_only(data or b""), found
    return Settings(paths, config, error, None if data is None else sha256(data).hexdigest())


def parse_config(data: bytes, *, source: str = Paths.CONFIG) -> HookConfig:
    """Read a configuration; ``source`` is the file's name, for messages.

    Raises InputError: not TOML, an unknown table or key, a value of the wrong type or out of range (``hook-config``).
    """
    values: dict[str, object] = {}
    try:
        for name, value in _document(data, source).items():
            if not isinstance(value, dict):
                values[name] = _checked("", name, value)
            elif name == "" or name not in KEYS:
                raise InputError(f"there is no table [{name[:80]}]; there are {', '.join(sorted(filter(None, KEYS)))}")
            else:
                values |= {f"{name}_{key}": _checked(name, key, item) for key, item in value.items()}
        config = HookConfig(**values)  # type: ignore[arg-type]
        if config.allow_no_gpu and (config.expected_gpus or config.expected_switches):
            raise InputError("allow_no_gpu contradicts the expected numbers")
    except InputError as error:
        raise _error(source, error.message) from None
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
