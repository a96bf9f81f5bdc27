"""The way to ready GPUs, and the only one: Appraisal, then TrustedPlatform, then PublishedPlatform, then ready.

Each of these can be made from the one before alone, and refuses to be made from less. ``ReadyGate.open`` takes the last
of them, so that the hook never sets GPUs ready before their token is on disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Final, final

from nvattest._folder import TrustedFolder
from nvattest.devices.nvml import NvmlLibrary
from nvattest.devices.ready import TrustedPlatform, read_ready, set_not_ready, set_ready
from nvattest.errors import CollectionError, InputError, NvattestError
from nvattest.guest.paths import Paths

__all__ = ["PublishedPlatform", "ReadyGate", "are_ready", "take_away"]

_ASK_SECONDS: Final = 2.0
_ASK_LEAST: Final = 0.2
# What says by itself why the ready state is not as it was to be.
_OWN_CODES: Final = frozenset({"driver-timeout", "devices-changed", "ready-state"})


@final
class PublishedPlatform:
    """Proof that the token of a trusted platform is on disk, whole.

    Raises:
        InputError: the file does not hold exactly this token (``output``).
    """

    __slots__ = ("platform", "token_sha256")

    def __init__(self, platform: TrustedPlatform, *, folder: TrustedFolder, token: bytes) -> None:
        if type(platform) is not TrustedPlatform:
            raise TypeError("only a trusted platform has a token")
        try:
            found = folder.read(Paths.TOKEN, len(token))
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror or error}", code="output") from None
        if not token or found != token:
            raise InputError(f"{folder.at(Paths.TOKEN)} does not hold the token that was written", code="output")
        self.platform: Final = platform
        self.token_sha256: Final = sha256(token).hexdigest()


@final
class ReadyGate:
    """The ready state of this machine's GPUs, as far as this run is answerable for it.

    ``closed`` is True once the driver has confirmed, to us, that it made the GPUs not ready, and False once it has
    made them ready. ``ready`` is what it answered last, whoever set it; None while no answer holds. ``seconds`` is how
    long it took the last time to set the state, which is what it will take again.
    """

    __slots__ = ("_library", "_pending", "closed", "ready", "seconds")

    def __init__(self, library: NvmlLibrary, *, ready: bool | None = None) -> None:
        self._library = library
        self._pending = False
        self.closed: bool | None = None
        self.ready = ready
        self.seconds = 0.0

    def close(self, *, seconds: float) -> None:
        """Let no GPU accept work; given up after this time.

        Raises:
            CollectionError: the driver refused or did not answer; ``ready`` is what it says then.
        """
        self._set(seconds, lambda left: set_not_ready(self._library, timeout=left))
        if self._pending:
            self.ready = None
            raise CollectionError(
                "a call that sets them ready was given up and may still be done",
                code="ready-state",
                hint="look at nvidia-smi conf-compute -grs; the GPUs had been attested",
            )
        self.closed, self.ready = True, False

    def open(self, published: PublishedPlatform, *, seconds: float) -> None:
        """Let the GPUs of a trusted platform whose token is on disk accept work; given up after this time.

        Raises:
            CollectionError: the driver refused or did not answer; ``ready`` is what it says then.
        """
        if type(published) is not PublishedPlatform:
            raise TypeError("the GPUs are set ready for a published platform and for nothing else")
        try:
            self._set(seconds, lambda left: set_ready(self._library, published.platform, timeout=left))
        except CollectionError as error:
            # A call that hangs in the driver cannot be taken back.
            self._pending = error.code == "driver-timeout"
            raise
        self.closed, self.ready = False, True

    def _set(self, seconds: float, work: Callable[[float], None]) -> None:
        started = time.monotonic()
        until = started + seconds
        self.closed = self.ready = None
        try:
            work(seconds)
            self.seconds = time.monotonic() - started
        except CollectionError as error:
            if error.code != "driver-timeout" and not self._pending:
                with suppress(NvattestError):
                    self.ready = read_ready(self._library, timeout=max(_ASK_LEAST, until - time.monotonic()))
            if error.code in _OWN_CODES:
                raise
            raise CollectionError(
                f"the driver did not set the ready state: {error.message}",
                code="ready-state",
                result_code=error.result_code,
                hint=error.hint,
            ) from error


def take_away(library_path: str | os.PathLike[str] | None, *, seconds: float) -> bool | None:
    """Take the ready state away where a run could not even begin, within this time.

    Returns what the driver says of the GPUs afterwards; None where it says nothing. Never raises.
    """
    until = time.monotonic() + seconds
    try:
        library = NvmlLibrary.open(library_path, timeout=seconds, here=True)
    except NvattestError:
        return None
    gate = ReadyGate(library)
    try:
        gate.close(seconds=max(_ASK_LEAST, until - time.monotonic()))
    except NvattestError:
        return gate.ready
    finally:
        library.close(timeout=max(0.0, until - time.monotonic()))
    return gate.ready


def are_ready(library_path: str | os.PathLike[str] | None) -> bool:
    """Whether the driver says that the GPUs are ready; False where it says nothing in time. Never raises."""
    try:
        with NvmlLibrary.open(library_path, timeout=_ASK_SECONDS) as library:
            return read_ready(library, timeout=_ASK_SECONDS)
    except NvattestError:
        return False
