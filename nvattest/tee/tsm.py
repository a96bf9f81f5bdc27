"""A quote of the CPU TEE through Linux' configfs-tsm (Documentation/ABI/testing/configfs-tsm-report, Linux 6.7).

One request: make a directory of our own, write the report data once, read the quote, see by ``generation`` that no
other program wrote in between, remove the directory. The kernel commits what was written at ``close`` and drops errors
there, so that ``generation`` is the only proof that our 64 bytes are the ones in the quote.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from nvattest._waiting import Deadline, Late, Work
from nvattest.errors import CollectionError, InputError, ResultCode

DEFAULT_ROOT: Final = "/sys/kernel/config/tsm/report"
REPORT_DATA_SIZE: Final = 64
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


class _Race(Exception):  # noqa: N818 - not an error: the attempt is repeated
    """Another program wrote into our directory."""


def take_quote(
    report_data: bytes,
    *,
    root: str = DEFAULT_ROOT,
    seconds: float = DEFAULT_SECONDS,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> TeeQuote:
    """Have the CPU sign ``report_data`` (64 bytes).

    Args:
        report_data: see ``nvattest.token.binding.report_data``.
        root: the directory ``report`` of configfs-tsm.
        seconds: for everything together. TDX quotes come from a service on the host and may take seconds.
        attempts: how often a race is answered with a new directory.
        sleep: for tests.
        clock: for tests; seconds that never go back.

    Raises:
        InputError: report data of another size.
        CollectionError: codes ``tsm-missing``, ``tsm-no-provider``, ``tsm-permission``, ``tsm-timeout``, ``tsm-race``,
            ``tsm-size``, ``tsm-empty``, ``tsm-report-data``, ``tsm-error``; the directory is removed in every case.
    """
    if type(report_data) is not bytes or len(report_data) != REPORT_DATA_SIZE:
        raise InputError(f"report data has exactly {REPORT_DATA_SIZE} bytes", code="report-data")
    request = _Request(root, report_data, Deadline(seconds, clock=clock), sleep)

    def work() -> TeeQuote:
        for _ in range(max(attempts, 1)):
            try:
                return request.once()
            except _Race:
                continue
        raise _error(
            f"another program wrote into our request {attempts} times",
            "tsm-race",
            "another program in this guest writes into requests that are not its own",
        )

    # A read can sleep in the kernel. A thread that is left behind removes its directory when the kernel lets it go.
    try:
        return Work("tsm", work).result(Deadline(seconds + _GRACE))
    except Late:
        raise _late("outblob", "the kernel does not return") from None


class _Request:
    def __init__(self, root: str, report_data: bytes, deadline: Deadline, sleep: Callable[[float], None]) -> None:
        self._root, self._report_data, self._deadline, self._sleep = root, report_data, deadline, sleep

    def once(self) -> TeeQuote:
        """One directory, one write, one quote."""
        folder = self._make()
        try:
            return self._use(folder)
        finally:
            # A directory that stays does no harm: the generation has shown that the quote is ours.
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def _make(self) -> str:
        for _ in range(8):
            folder = os.path.join(self._root, f"nvattest-{os.getpid()}-{os.urandom(8).hex()}")
            try:
                os.mkdir(folder, 0o700)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    _explain(error, self._root)
            else:
                return folder
        raise _error(f"{self._root}: no name is free", "tsm-error")

    def _use(self, folder: str) -> TeeQuote:
        before = self._generation(folder)
        self._write(os.path.join(folder, "inblob"))
        quote = self._patiently(os.path.join(folder, "outblob"), MAXIMUM_QUOTE)
        provider = self._patiently(os.path.join(folder, "provider"), 256).decode("ascii", "replace").strip()
        auxiliary = self._auxiliary(os.path.join(folder, "auxblob"))
        after = self._generation(folder)
        if after != before + 1:
            raise _Race
        if not quote:
            raise _error("the kernel gave an empty quote", "tsm-empty")
        return TeeQuote(
            provider=provider,
            quote=quote,
            auxiliary=auxiliary or None,
            report_data=self._report_data,
            generation=after,
        )

    def _generation(self, folder: str) -> int:
        text = self._patiently(os.path.join(folder, "generation"), 32).strip()
        if not text.isdigit():
            raise _error(f"generation is {text!r}, expected a number", "tsm-error")
        return int(text)

    def _write(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY)
            try:
                written = os.write(descriptor, self._report_data)
            finally:
                os.close(descriptor)
        except OSError as error:
            _explain(error, path)
        if written != REPORT_DATA_SIZE:
            # A second write would be a second generation; a new request is cleaner.
            raise _Race

    def _auxiliary(self, path: str) -> bytes | None:
        try:
            return self._read(path, MAXIMUM_AUXILIARY)
        except OSError as error:
            if error.errno in _NOT_HERE:
                return None
            _explain(error, path)

    def _patiently(self, path: str, maximum: int) -> bytes:
        while True:
            try:
                return self._read(path, maximum)
            except OSError as error:
                if error.errno not in _AGAIN:
                    _explain(error, path)
                if self._deadline.remaining() < _PAUSE:
                    raise _late(path, error.strerror or "") from None
            self._sleep(_PAUSE)

    @staticmethod
    def _read(path: str, maximum: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            parts: list[bytes] = []
            size = 0
            while part := os.read(descriptor, 65536):
                parts.append(part)
                size += len(part)
                if size > maximum:
                    raise _error(f"{path}: more than {maximum} bytes", "tsm-size")
        finally:
            os.close(descriptor)
        return b"".join(parts)


def _late(what: str, why: str) -> CollectionError:
    return _error(
        f"{what}: no quote in time ({why})", "tsm-timeout", "the quoting service of the host is slow or not running"
    )


def _explain(error: OSError, path: str) -> NoReturn:
    """The kernel's error as ours."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENXIO, errno.ENODEV):
        raise _error(
            f"{path}: the kernel has no provider of quotes",
            "tsm-no-provider",
            "this is no TDX or SNP guest, or the module tdx_guest or sev_guest is not loaded",
        ) from None
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        raise _error(
            f"{path}: {reason}", "tsm-missing", "mount configfs and load the module tsm (Linux 6.7 or newer)"
        ) from None
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise _error(f"{path}: {reason}", "tsm-permission", "only root may ask for a quote") from None
    if error.errno == errno.EINVAL:
        raise _error(f"{path}: the provider refuses the report data", "tsm-report-data") from None
    raise _error(f"{path}: {reason}", "tsm-error") from None


def _error(message: str, code: str, hint: str = "") -> CollectionError:
    return CollectionError(message, code=code, result_code=ResultCode.INTERNAL_ERROR, hint=hint)
