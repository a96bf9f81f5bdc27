"""What Linux gives a confidential guest: quotes (configfs-tsm, Linux 6.7) and a TDX guest's runtime registers (6.16).

A quote is one request: make a directory of our own, write the report data once, read the quote, see by ``generation``
that no other program wrote in between, remove the directory. The kernel commits what was written at ``close`` and drops
errors there, so that ``generation`` is the only proof that our 64 bytes are the ones in the quote
(Documentation/ABI/testing/configfs-tsm-report).

A register is extended by writing exactly 48 bytes at offset 0: new = SHA-384(old || digest). Once the digest of the
device evidence is in a register, every later quote proves that this guest saw this evidence before.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from nvattest._waiting import Deadline, Late, Work
from nvattest.errors import CollectionError, InputError, ResultCode

DEFAULT_ROOT: Final = "/sys/kernel/config/tsm/report"
REGISTERS: Final = "/sys/devices/virtual/misc/tdx_guest/measurements"
REPORT_DATA_SIZE: Final = 64
REGISTER_SIZE: Final = 48
# TSM_REPORT_OUTBLOB_MAX of new kernels, for TDX quotes with long certificate chains.
MAXIMUM_QUOTE: Final = 16 * 1024 * 1024
MAXIMUM_AUXILIARY: Final = 1024 * 1024
DEFAULT_SECONDS: Final = 8.0
ATTEMPTS: Final = 3

_PAUSE: Final = 0.05
# The work sees its own deadline first, and says more about what it waited for.
_GRACE: Final = 0.2
# The quoting service on the host is busy, we were interrupted, or the kernel waits for another reader.
_AGAIN: Final = frozenset({errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.EAGAIN})
_NOT_HERE: Final = frozenset({errno.ENOENT, errno.ENXIO, errno.EOPNOTSUPP, errno.EACCES, errno.EINVAL})

# By the kernel's number: our code, our words where they say more than the kernel's, and what to do.
_Words = Mapping[int, tuple[str, str, str]]
_NO_PROVIDER: Final = (
    "tsm-no-provider", "the kernel has no provider of quotes",
    "this is no TDX or SNP guest, or the module tdx_guest or sev_guest is not loaded",
)  # fmt: skip
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_OF_QUOTES: Final[_Words] = {
    **dict.fromkeys((errno.ENXIO, errno.ENODEV), _NO_PROVIDER),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR),
        ("tsm-missing", "", "mount configfs and load the module tsm (Linux 6.7 or newer)"),
    ),
    **dict.fromkeys(_FORBIDDEN, ("tsm-permission", "", "only root may ask for a quote")),
    errno.EINVAL: ("tsm-report-data", "the provider refuses the report data", ""),
}
_OF_REGISTERS: Final[_Words] = {
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV),
        ("rtmr-missing", "", "a TDX guest with Linux 6.16 or newer has these registers"),
    ),
    **dict.fromkeys(_FORBIDDEN, ("rtmr-permission", "", "only root may extend a register")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TeeQuote:
    """A quote as the kernel gave it, not verified.

    ``provider`` is ``tdx_guest``, ``sev_guest`` or another name of the kernel's; ``quote`` the bytes of ``outblob``;
    ``auxiliary`` those of ``auxblob`` (SNP: the certificate table) or None; ``generation`` what it was after reading.
    """

    provider: str
    quote: bytes
    auxiliary: bytes | None
    report_data: bytes
    generation: int


def take_quote(
    report_data: bytes,
    *,
    root: str = DEFAULT_ROOT,
    seconds: float = DEFAULT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> TeeQuote:
    """Have the CPU sign ``report_data`` (64 bytes).

    Args:
        report_data: see ``nvattest.token.binding.report_data``.
        root: the directory ``report`` of configfs-tsm.
        seconds: for everything together. TDX quotes come from a service on the host and may take seconds.
        sleep: for tests.
        clock: for tests; seconds that never go back.

    Raises:
        InputError: report data of another size.
        CollectionError: codes ``tsm-missing``, ``tsm-no-provider``, ``tsm-permission``, ``tsm-timeout``, ``tsm-race``,
            ``tsm-size``, ``tsm-empty``, ``tsm-report-data``, ``tsm-error``; the directory is removed in every case.
    """
    if type(report_data) is not bytes or len(report_data) != REPORT_DATA_SIZE:
        raise InputError(f"report data has exactly {REPORT_DATA_SIZE} bytes", code="report-data")
    deadline = Deadline(seconds, clock=clock)

    def read(path: str, maximum: int, *, absent: frozenset[int] = frozenset()) -> bytes:
        while True:
            try:
                data = _read(path, maximum)
            except OSError as error:
                if error.errno in absent:
                    return b""
                if error.errno not in _AGAIN:
                    raise _explained(error, path, _OF_QUOTES, "tsm-error") from None
                if deadline.remaining() < _PAUSE:
                    raise _late(path, error.strerror or "") from None
            else:
                if len(data) > maximum:
                    raise _error(f"{path}: more than {maximum} bytes", "tsm-size")
                return data
            sleep(_PAUSE)

    def generation(folder: str) -> int:
        text = read(f"{folder}/generation", 32).strip()
        if not text.isdigit():
            raise _error(f"generation is {text!r}, expected a number", "tsm-error")
        return int(text)

    def attempt() -> TeeQuote | None:
        """One directory, one write, one quote; None where another program wrote, too."""
        folder = _make(root)
        try:
            before = generation(folder)
            path = f"{folder}/inblob"
            try:
                written = _write(path, report_data)
            except OSError as error:
                raise _explained(error, path, _OF_QUOTES, "tsm-error") from None
            if written != REPORT_DATA_SIZE:
                # A second write would be a second generation; a new request is cleaner.
                return None
            quote = read(f"{folder}/outblob", MAXIMUM_QUOTE)
            provider = read(f"{folder}/provider", 256).decode("ascii", "replace").strip()
            auxiliary = read(f"{folder}/auxblob", MAXIMUM_AUXILIARY, absent=_NOT_HERE) or None
            after = generation(folder)
        finally:
            # A directory that stays does no harm: the generation shows that the quote is ours.
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if after != before + 1:
            return None
        if not quote:
            raise _error("the kernel gave an empty quote", "tsm-empty")
        return TeeQuote(provider=provider, quote=quote, auxiliary=auxiliary, report_data=report_data, generation=after)

    def work() -> TeeQuote:
        for _ in range(ATTEMPTS):
            if (quote := attempt()) is not None:
                return quote
        hint = "another program in this guest writes into requests that are not its own"
        raise _error(f"another program wrote into our request {ATTEMPTS} times", "tsm-race", hint)

    # A read can sleep in the kernel. A thread that is left behind removes its directory when the kernel lets it go.
    try:
        return Work("tsm", work).result(Deadline(seconds + _GRACE))
    except Late:
        raise _late("outblob", "the kernel does not return") from None


def _make(root: str) -> str:
    """A new directory of our own."""
    for _ in range(8):
        folder = os.path.join(root, f"nvattest-{os.getpid()}-{os.urandom(8).hex()}")
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise _explained(error, root, _OF_QUOTES, "tsm-error") from None
        else:
            return folder
    raise _error(f"{root}: no name is free", "tsm-error")


def extend_register(digest: bytes, *, register: int = 3, folder: str = REGISTERS) -> bytes:
    """Put a digest of 48 bytes into a register, RTMR 2 or 3; returns the register's value afterwards.

    Raises:
        InputError: a digest of another size, or a register that is not there for software (code ``rtmr``).
        CollectionError: no such register (``rtmr-missing``), not allowed (``rtmr-permission``), the kernel refused
            (``rtmr-error``), or the register does not hold what it should: another program extended it meanwhile,
            and whether our digest is in it is not known (``rtmr-race``).
    """
    if type(digest) is not bytes or len(digest) != REGISTER_SIZE:
        raise InputError(f"a digest for a register has exactly {REGISTER_SIZE} bytes", code="rtmr")
    if register not in (2, 3):
        raise InputError(f"RTMR {register} is not for software of the guest", code="rtmr", hint="use 2 or 3")
    path = os.path.join(folder, f"rtmr{register}:sha384")
    try:
        before = _read_register(path)
        written = _write(path, digest)
        after = _read_register(path)
    except OSError as error:
        raise _explained(error, path, _OF_REGISTERS, "rtmr-error") from None
    if written != REGISTER_SIZE:
        raise _error(f"{path}: {written} of {REGISTER_SIZE} bytes were written", "rtmr-error")
    expected = hashlib.sha384(before + digest).digest()
    if after != expected:
        found = f"{path} holds {after.hex()[:16]}…, expected {expected.hex()[:16]}…: another program extended it"
        hint = "let one program at a time extend the register; its event log shows what happened"
        raise _error(found, "rtmr-race", hint)
    return after


def _read_register(path: str) -> bytes:
    value = _read(path, REGISTER_SIZE)
    if len(value) != REGISTER_SIZE:
        raise _error(f"{path}: {len(value)} bytes, expected {REGISTER_SIZE}", "rtmr-error")
    return value


def _read(path: str, maximum: int) -> bytes:
    """The bytes of a file of the kernel, and some more than ``maximum`` where it has more."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = bytearray()
        while len(data) <= maximum and (part := os.read(descriptor, 65536)):
            data += part
    finally:
        os.close(descriptor)
    return bytes(data)


def _write(path: str, data: bytes) -> int:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _late(what: str, why: str) -> CollectionError:
    hint = "the quoting service of the host is slow or not running"
    return _error(f"{what}: no quote in time ({why})", "tsm-timeout", hint)


def _explained(error: OSError, path: str, words: _Words, other: str) -> CollectionError:
    code, reason, hint = words.get(error.errno or 0, (other, "", ""))
    return _error(f"{path}: {reason or error.strerror or error}", code, hint)


def _error(message: str, code: str, hint: str = "") -> CollectionError:
    return CollectionError(message, code=code, result_code=ResultCode.INTERNAL_ERROR, hint=hint)
