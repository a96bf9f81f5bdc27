"""Runtime measurement registers of a TDX guest (Linux 6.16: ``tdx_guest/measurements/rtmr3:sha384``).

A register is extended by writing exactly 48 bytes at offset 0: new = SHA-384(old || digest). Once the digest of the
device evidence is in a register, every later quote proves that this guest saw this evidence before.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nvattest.errors import CollectionError, InputError, ResultCode

DEFAULT_FOLDER: Final = "/sys/devices/virtual/misc/tdx_guest/measurements"
SIZE: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What was done to a register: its value before and after, and the digest between them; 48 bytes each."""

    register: int
    before: bytes
    digest: bytes
    after: bytes


def replay(start: bytes, digests: Iterable[bytes]) -> bytes:
    """The value of a register that held ``start`` after the digests were put in, in order."""
    value = start
    for digest in digests:
        value = hashlib.sha384(value + digest).digest()
    return value


def extend(digest: bytes, *, register: int = 3, folder: str = DEFAULT_FOLDER) -> Extension:
    """Put a digest of 48 bytes into a register; RTMR 2 and 3 are for the guest's software.

    Raises:
        InputError: a digest of another size, or a register that is not there for software (code ``rtmr``).
        CollectionError: no such register (``rtmr-missing``), not allowed (``rtmr-permission``), the kernel refused
            (``rtmr-error``), or the register does not hold what it should: another program extended it meanwhile,
            and whether our digest is in it is not known (``rtmr-race``).
    """
    if type(digest) is not bytes or len(digest) != SIZE:
        raise InputError(f"a digest for a register has exactly {SIZE} bytes", code="rtmr")
    if register not in (2, 3):
        raise InputError(f"RTMR {register} is not for software of the guest", code="rtmr", hint="use 2 or 3")
    path = os.path.join(folder, f"rtmr{register}:sha384")
    try:
        before = _read(path)
        descriptor = os.open(path, os.O_WRONLY)
        try:
            written = os.write(descriptor, digest)
        finally:
            os.close(descriptor)
        after = _read(path)
    except OSError as error:
        raise _explain(error, path) from None
    if written != SIZE:
        raise _error(f"{path}: {written} of {SIZE} bytes were written", "rtmr-error")
    expected = replay(before, [digest])
    if after != expected:
        raise _error(
            f"{path} holds {after.hex()[:16]}…, expected {expected.hex()[:16]}…: another program extended it",
            "rtmr-race",
            "let one program at a time extend the register; its event log shows what happened",
        )
    return Extension(register=register, before=before, digest=digest, after=after)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # One byte more than there may be, so that what is too long is seen.
        value = os.read(descriptor, SIZE + 1)
    finally:
        os.close(descriptor)
    if len(value) != SIZE:
        raise _error(f"{path}: {len(value)} bytes, expected {SIZE}", "rtmr-error")
    return value


def _explain(error: OSError, path: str) -> CollectionError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV):
        return _error(f"{path}: {reason}", "rtmr-missing", "a TDX guest with Linux 6.16 or newer has these registers")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _error(f"{path}: {reason}", "rtmr-permission", "only root may extend a register")
    return _error(f"{path}: {reason}", "rtmr-error")


def _error(message: str, code: str, hint: str = "") -> CollectionError:
    return CollectionError(message, code=code, result_code=ResultCode.INTERNAL_ERROR, hint=hint)
