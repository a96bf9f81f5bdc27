"""The way to ready GPUs, and the only one: Appraisal, then TrustedPlatform, then PublishedPlatform, then ready.

Each of these can be made from the one before alone, and refuses to be made from less. ``ReadyGate.open`` takes the last
of them, so that the hook never sets GPUs ready before their token is on disk.
"""

from __future__ import annotations

import os
import time
from hashlib import sha256
from typing import Final, final

from nvattest._folder import TrustedFolder
from nvattest.devices.nvml import NvmlLibrary
from nvattest.devices.ready import TrustedPlatform, read_ready, set_not_ready, set_ready
from nvattest.errors import CollectionError, InputError, NvattestError
from nvattest.kata.paths import Paths

__all__ = ["PublishedPlatform", "ReadyGate", "are_ready", "take_away"]

_CLOSE_SECONDS: Final = 1.0
_TAKE_AWAY_SECONDS: Final = 2.0
_OPEN_SECONDS: Final = 2.0
_ASK_SECONDS: Final = 2.0


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

    ``closed`` is True once the driver has said, to us, that the GPUs are not ready; None while nobody knows.
    """

    __slots__ = ("_library", "_pending", "closed")

    def __init__(self, library: NvmlLibrary) -> None:
        self._library = library
        self._pending = False
        self.closed: bool | None = None

    def close(self, *, seconds: float = _CLOSE_SECONDS) -> None:
        """Let no GPU accept work; given up after a second, or sooner.

        Raises:
            CollectionError: the driver refused or did not answer; the state is unknown then.
        """
        self.closed = None
        set_not_ready(self._library, timeout=min(_CLOSE_SECONDS, seconds))
        if self._pending:
            raise CollectionError(
                "a call that sets them ready was given up and may still be done",
                code="ready-state",
                hint="look at nvidia-smi conf-compute -grs; the GPUs had been attested",
            )
        self.closed = True

    def open(self, published: PublishedPlatform, *, seconds: float = _OPEN_SECONDS) -> None:
        """Let the GPUs of a trusted platform whose token is on disk accept work; given up after 2 s, or sooner.

        Raises:
            CollectionError: the driver refused or did not answer; the state is unknown then.
        """
        if type(published) is not PublishedPlatform:
            raise TypeError("the GPUs are set ready for a published platform and for nothing else")
        self.closed = None
        try:
            set_ready(self._library, published.platform, timeout=min(_OPEN_SECONDS, seconds))
        except CollectionError as error:
            # A call that hangs in the driver cannot be taken back.
            self._pending = error.code == "driver-timeout"
            raise
        self.closed = False


def take_away(library_path: str | os.PathLike[str] | None, *, seconds: float = _TAKE_AWAY_SECONDS) -> bool:
    """Take the ready state away where a run could not even begin, within this time; whether the driver confirmed it.

    Never raises.
    """
    until = time.monotonic() + seconds
    try:
        library = NvmlLibrary.open(library_path, timeout=min(_CLOSE_SECONDS, seconds))
    except NvattestError:
        return False
    try:
        ReadyGate(library).close(seconds=max(0.0, until - time.monotonic()))
    except NvattestError:
        return False
    finally:
        library.close(timeout=max(0.0, until - time.monotonic()))
    return True


def are_ready(library_path: str | os.PathLike[str] | None) -> bool:
    """Whether the driver says that the GPUs are ready; False where it says nothing in time. Never raises."""
    try:
        with NvmlLibrary.open(library_path, timeout=_ASK_SECONDS) as library:
            return read_ready(library, timeout=_ASK_SECONDS)
    except NvattestError:
        return False
