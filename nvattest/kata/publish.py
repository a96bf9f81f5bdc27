"""The outputs in ``/run/nvattest``: appraisal, token and key set. A token is there only while its verdict stands."""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta, timezone

from nvattest.appraisal.results import Appraisal
from nvattest.appraisal.serialize import appraisal_to_json
from nvattest.claims import claims_of
from nvattest.devices.ready import TrustedPlatform
from nvattest.errors import InputError
from nvattest.kata.config import HookConfig
from nvattest.kata.files import remove, write_whole
from nvattest.kata.paths import Paths
from nvattest.kata.ready import PublishedPlatform

__all__ = ["publish", "withdraw", "write_appraisal"]


def publish(platform: TrustedPlatform, paths: Paths, config: HookConfig) -> PublishedPlatform:
    """Sign the token of a trusted platform and put it on disk, its key set first.

    The key is made here and forgotten here: what it signed can be verified, and nothing more is signed with it.

    Raises:
        InputError: a file could not be written (``output``).
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    from nvattest.token.common import DEFAULT_ISSUER
    from nvattest.token.eat import sign_detached_eat
    from nvattest.token.keys import SigningKey

    key = SigningKey(ec.generate_private_key(ec.SECP384R1()))
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
    data = json.dumps(token).encode() + b"\n"
    try:
        write_whole(paths.jwks, json.dumps(key.public.jwks(), indent=1).encode() + b"\n")
        # Whoever holds the token can show it as his own until it ends.
        write_whole(paths.token, data, mode=0o600)
    except OSError as error:
        raise InputError(f"{paths.token}: {error.strerror or error}", code="output") from None
    return PublishedPlatform(platform, path=paths.token, token=data)


def write_appraisal(appraisal: Appraisal, paths: Paths) -> None:
    """Write every check, good or bad.

    Raises:
        InputError: it could not be written (``output``).
    """
    try:
        write_whole(paths.appraisal, (json.dumps(appraisal_to_json(appraisal), indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"{paths.appraisal}: {error.strerror or error}", code="output") from None


def withdraw(paths: Paths) -> None:
    """Remove token, key set and appraisal of an earlier run.

    Raises:
        InputError: a file is there and cannot be removed (``output``).
    """
    for path in (paths.token, paths.jwks, paths.appraisal):
        try:
            remove(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}", code="output") from None
