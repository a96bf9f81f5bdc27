"""The outputs in ``/run/nvattest``: appraisal, token and key set. A token is there only while its verdict stands."""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import NamedTuple

from nvattest._documents import load_json
from nvattest._folder import TrustedFolder
from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.serialize import appraisal_to_json
from nvattest.devices.ready import TrustedPlatform
from nvattest.errors import InputError
from nvattest.guest.config import HookConfig
from nvattest.guest.paths import Paths
from nvattest.guest.ready import PublishedPlatform
from nvattest.token.claims import claims_of

__all__ = ["Token", "publish", "sign", "withdraw", "write_appraisal"]


_MAXIMUM_JWKS = 65536


class Token(NamedTuple):
    """A signed token and the public key to verify it with, not on disk yet."""

    data: bytes
    key: dict[str, object]

    @property
    def sha256(self) -> str:
        """The digest by which a later run recognises it."""
        return sha256(self.data).hexdigest()


def sign(platform: TrustedPlatform, config: HookConfig) -> Token:
    """Sign the token of a trusted platform.

    The key is made here and forgotten here: what it signed can be verified, and nothing more is signed with it.
    """
    from nvattest.token.eat import sign_detached_eat
    from nvattest.token.keys import SigningKey
    from nvattest.token.provenance import DEFAULT_ISSUER

    key = SigningKey.generate()
    token = sign_detached_eat(
        platform.appraisal,
        claims=claims_of(platform.appraisal, version=config.token_claims_version),
        claims_version=config.token_claims_version,
        key=key,
        now=datetime.now(timezone.utc),
        new_id=lambda: secrets.token_urlsafe(24),
        issuer=config.token_issuer or DEFAULT_ISSUER,
        lifetime=timedelta(seconds=config.token_lifetime),
    )
    return Token(json.dumps(token).encode() + b"\n", key.public.jwk())


def publish(
    platform: TrustedPlatform, token: Token, folder: TrustedFolder, *, keep_old_key: bool = False
) -> PublishedPlatform:
    """Put the token of a trusted platform on disk, its key set first.

    With ``keep_old_key`` the key set also has the key of the token that is being replaced, so that whichever token a
    reader finds, or a run that is killed between the two leaves, can be verified.

    Raises:
        InputError: a file could not be written (``output``).
    """
    keys = [token.key, *(_first_key(folder) if keep_old_key else ())]
    try:
        folder.write(Paths.JWKS, json.dumps({"keys": keys}, indent=1).encode() + b"\n")
        # Whoever holds the token can show it as his own until it ends.
        folder.write(Paths.TOKEN, token.data, mode=0o600)
    except OSError as error:
        raise _failed(error) from None
    return PublishedPlatform(platform, folder=folder, token=token.data)


def _first_key(folder: TrustedFolder) -> list[dict[str, object]]:
    try:
        document = load_json(folder.read(Paths.JWKS, _MAXIMUM_JWKS), source="key set", maximum=_MAXIMUM_JWKS)
    except (OSError, InputError):
        return []
    keys = document.get("keys") if isinstance(document, dict) else None
    return [key for key in keys[:1] if isinstance(key, dict)] if isinstance(keys, list) else []


def write_appraisal(appraisal: Appraisal, folder: TrustedFolder) -> None:
    """Write every check, good or bad.

    Raises:
        InputError: it could not be written (``output``).
    """
    try:
        folder.write(Paths.APPRAISAL, (json.dumps(appraisal_to_json(appraisal), indent=1) + "\n").encode())
    except OSError as error:
        raise _failed(error) from None


def withdraw(folder: TrustedFolder) -> None:
    """Remove token, key set and appraisal of an earlier run.

    Raises:
        InputError: a file is there and cannot be removed (``output``).
    """
    try:
        for name in (Paths.TOKEN, Paths.JWKS, Paths.APPRAISAL):
            folder.remove(name)
    except OSError as error:
        raise _failed(error) from None


def _failed(error: OSError) -> InputError:
    return InputError(f"{error.filename}: {error.strerror or error}", code="output")
