"""The way to ready GPUs, and the only one: Appraisal, then TrustedPlatform, then PublishedPlatform, then ready.

Each of these can be made from the one before alone, and refuses to be made from less. ``ReadyGate.open`` takes the last
of them, so that the hook never sets GPUs ready before their token is on disk. In ``/run/nvattest`` a token and its key
set are there only while their verdict stands; the appraisal is there also where it says why not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple, final

from nvattest._system import TrustedFolder
from nvattest._waiting import Deadline
from nvattest.devices.nvml import NvmlLibrary
from nvattest.devices.state import TrustedPlatform, read_ready, set_not_ready, set_ready
from nvattest.errors import CollectionError, InputError, NvattestError
from nvattest.guest.config import Paths
from nvattest.guest.record import read_as

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal
    from nvattest.evidence import Evidence
    from nvattest.guest.config import HookConfig
    from nvattest.model import Nonce
    from nvattest.token.jose import SigningKey

_ASK_SECONDS: Final = 2.0
_ASK_LEAST: Final = 0.2
# What says by itself why the ready state is not as it was to be.
_OWN_CODES: Final = frozenset({"driver-timeout", "devices-changed", "ready-state"})
_MAXIMUM_JWKS: Final = 65536


class Token(NamedTuple):
    """A signed token and the public key to verify it with, not on disk yet."""

    data: bytes
    key: dict[str, object]


class Bound(NamedTuple):
    """A token's key, made before the devices are asked, and the nonce that follows from it and a challenge."""

    key: SigningKey
    challenge: bytes
    nonce: Nonce


class Quote(NamedTuple):
    """The file of a quote over key and evidence, and what the record says of it."""

    data: bytes
    said: dict[str, str]


def bind() -> Bound:
    """A key and a challenge of our own. A relying party that wants a fresh answer asks with its own challenge."""
    from nvattest.token.binding import derive_device_nonce
    from nvattest.token.jose import SigningKey

    key, challenge = SigningKey.generate(), os.urandom(32)
    return Bound(key, challenge, derive_device_nonce(challenge, key.public.thumbprint_bytes))


def quote_over(bound: Bound, evidence: Sequence[Evidence], *, root: str, seconds: float) -> Quote:
    """Have the CPU quote the key and the evidence. It is not judged here: a guest cannot vouch for itself.

    Raises CollectionError: no quote, or none in time (``tsm-...``).
    """
    from nvattest.tee import tsm
    from nvattest.tee.quote import dump_quote
    from nvattest.token.binding import evidence_digest_of, report_data

    digest = evidence_digest_of([(item.report, item.certificate_chain) for item in evidence])
    covered = report_data(bound.challenge, bound.key.public.thumbprint_bytes, digest)
    quote = tsm.take_quote(covered, root=root, seconds=seconds)
    challenge = bound.challenge.hex()
    data = json.dumps({**dump_quote(quote), "challenge": challenge}, indent=1).encode() + b"\n"
    return Quote(data, {"provider": quote.provider, "challenge": challenge, "sha256": sha256(data).hexdigest()})


def sign(platform: TrustedPlatform, config: HookConfig, key: SigningKey | None = None) -> Token:
    """Sign the token of a trusted platform, by ``key`` or a new one, which signs nothing else and is kept nowhere."""
    from nvattest.session import issue_token
    from nvattest.token.jose import SigningKey

    key = key if key is not None else SigningKey.generate()
    token = issue_token(
        platform.appraisal,
        key,
        claims_version=config.token_claims_version,
        issuer=config.token_issuer,
        lifetime=timedelta(seconds=config.token_lifetime),
    )
    return Token(json.dumps(token).encode() + b"\n", key.public.jwk())


def publish(
    platform: TrustedPlatform,
    token: Token,
    folder: TrustedFolder,
    *,
    keep_old_key: bool = False,
    quote: Quote | None = None,
) -> PublishedPlatform:
    """Put the token of a trusted platform on disk, its key set and its quote first.

    With ``keep_old_key`` the key set also has the key of the token that is being replaced, so that whichever token a
    reader finds, or a run that is killed between the two leaves, can be verified. Raises OSError: a file could not be
    written. InputError: the token does not read back as it was written (``output``).
    """
    keys = [token.key, *(_first_key(folder) if keep_old_key else ())]
    if quote is not None:
        folder.write(Paths.QUOTE, quote.data)
    folder.write(Paths.JWKS, json.dumps({"keys": keys}, indent=1).encode() + b"\n")
    # A bearer's: whoever can read it can use it.
    folder.write(Paths.TOKEN, token.data, mode=0o600)
    return PublishedPlatform(platform, folder=folder, token=token.data)


def _first_key(folder: TrustedFolder) -> list[dict[str, object]]:
    # What cannot be read is none that a reader would need.
    with suppress(OSError, ValueError, RecursionError, LookupError, TypeError):
        return [read_as(dict, json.loads(folder.read(Paths.JWKS, _MAXIMUM_JWKS))["keys"][0])]
    return []


def write_appraisal(appraisal: Appraisal, folder: TrustedFolder) -> None:
    """Write every check, good or bad."""
    from nvattest.appraisal.results import appraisal_to_json

    folder.write(Paths.APPRAISAL, (json.dumps(appraisal_to_json(appraisal), indent=1) + "\n").encode())


@final
class PublishedPlatform:
    """Proof that the token of a trusted platform is on disk, whole.

    Raises OSError: there is no file, or it cannot be trusted. InputError: the file does not hold exactly this token
    (``output``).
    """

    __slots__ = ("platform",)

    def __init__(self, platform: TrustedPlatform, *, folder: TrustedFolder, token: bytes) -> None:
        if type(platform) is not TrustedPlatform:
            raise TypeError("only a trusted platform has a token")
        if not token or folder.read(Paths.TOKEN, len(token)) != token:
            raise InputError(f"{folder.at(Paths.TOKEN)} does not hold the token that was written", code="output")
        self.platform: Final = platform


@final
class ReadyGate:
    """The ready state of this machine's GPUs, as far as this run is answerable for it.

    ``closed`` is True once the driver has confirmed, to us, that it made the GPUs not ready, and False once it has
    made them ready. ``ready`` is what it answered last, whichever program set it; None while no answer holds.
    ``seconds`` is how long it took the last time to set the state, which is what it will take again.
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

        Raises CollectionError: the driver refused or did not answer; ``ready`` is what it says then.
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

        Raises CollectionError: the driver refused or did not answer; ``ready`` is what it says then.
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
        deadline = Deadline(seconds)
        self.closed = self.ready = None
        try:
            work(seconds)
            self.seconds = deadline.seconds - deadline.remaining()
        except CollectionError as error:
            if error.code != "driver-timeout" and not self._pending:
                with suppress(NvattestError):
                    self.ready = read_ready(self._library, timeout=max(_ASK_LEAST, deadline.remaining()))
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
    deadline = Deadline(seconds)
    try:
        library = NvmlLibrary.open(library_path, timeout=seconds, here=True)
    except NvattestError:
        return None
    gate = ReadyGate(library)
    try:
        gate.close(seconds=max(_ASK_LEAST, deadline.remaining()))
    except NvattestError:
        return gate.ready
    finally:
        library.close(timeout=deadline.remaining())
    return gate.ready


def are_ready(library_path: str | os.PathLike[str] | None) -> bool:
    """Whether the driver says that the GPUs are ready; False where it says nothing in time. Never raises."""
    try:
        with NvmlLibrary.open(library_path, timeout=_ASK_SECONDS) as library:
            return read_ready(library, timeout=_ASK_SECONDS)
    except NvattestError:
        return False
