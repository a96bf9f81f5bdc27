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


def publish(
    platform: TrustedPlatform, paths: Paths, config: HookConfig, *, keep_old_key: bool = False
) -> PublishedPlatform:
    """Sign the token of a trusted platform and put it on disk, its key set first.

    The key is made here and forgotten here: what it signed can be verified, and nothing more is signed with it. With
    ``keep_old_key`` the key set also has the key of the token that is being replaced, so that whichever token a reader
    finds, or a run that is killed between the two leaves, can be verified.

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
    keys = [key.public.jwk(), *(_first_key(paths) if keep_old_key else ())]
    try:
        write_whole(paths.jwks, json.dumps({"keys": keys}, indent=1).encode() + b"\n")
        # Whoever holds the token can show it as his own until it ends.
        write_whole(paths.token, data, mode=0o600)
    except OSError as error:
        raise InputError(f"{paths.token}: {error.strerror or error}", code="output") from None
    return PublishedPlatform(platform, path=paths.token, token=data)


def _first_key(paths: Paths) -> list[dict[str, str]]:
    try:
        with open(paths.jwks, "rb") as file:
            keys = json.loads(file.read(65536))["keys"][:1]
    except (OSError, ValueError, TypeError, LookupError):
        return []
    return keys if isinstance(keys, list) else []


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
