"""Options of tokens that are issued, and the one function that issues them; key, clock and ids come from here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from nvattest.cli.arguments import choice, existing_file

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal
    from nvattest.token.keys import SigningKey

FORMATS = ("detached-eat", "ear")


def add_token_options(parser: argparse.ArgumentParser) -> None:
    """Which token, signed by whom, and where it goes."""
    group = parser.add_argument_group("token")
    group.add_argument(
        "--token-format", type=choice(*FORMATS), default=FORMATS[0], metavar="FORMAT",
        help="detached-eat (the default; NVIDIA's shape) or ear (EAT attestation result)",
    )  # fmt: skip
    group.add_argument(
        "--token-out", default="", metavar="FILE", help="write the token here, whole or not at all, for its owner only"
    )
    group.add_argument(
        "--signing-key", type=existing_file, metavar="PEM",
        help="sign with this P-384 key; without it a key is made for this run and forgotten",
    )  # fmt: skip
    group.add_argument("--issuer", default="", metavar="TEXT", help="iss of the token (NVATTEST-LOCAL-VERIFIER)")
    group.add_argument("--jwks-out", default="", metavar="FILE", help="write the public half of the key here, as JWKS")
    group.add_argument(
        "--token-lifetime", type=int, default=3600, metavar="SECONDS", help="how long the token is good (3600)"
    )


def signing_key(options: argparse.Namespace) -> SigningKey:
    """The key of ``--signing-key``, or a new one.

    Raises:
        InputError: the file holds no private P-384 key.
    """
    from nvattest.token.keys import MAXIMUM_PEM, SigningKey

    if options.signing_key is None:
        return SigningKey.generate()
    from nvattest.collateral.folders import read_bounded

    return SigningKey.from_pem(read_bounded(options.signing_key, MAXIMUM_PEM))


def overall_claims(appraisal: Appraisal, options: argparse.Namespace) -> dict[str, object]:
    """What the overall token says of the result; the subject of the overall section of JSON policies."""
    from nvattest.token.eat import SUBJECT
    from nvattest.token.provenance import DEFAULT_ISSUER

    return {
        "iss": options.issuer or DEFAULT_ISSUER,
        "sub": SUBJECT,
        "x-nvidia-ver": options.claims_version,
        "x-nvidia-overall-att-result": appraisal.trusted,
        "eat_nonce": appraisal.nonce.hex() if appraisal.nonce is not None else None,
    }


def make_token(
    appraisal: Appraisal,
    options: argparse.Namespace,
    *,
    key: SigningKey | None = None,
    relying_party: Mapping[str, object] | None = None,
) -> list[object] | str:
    """Sign the appraisal as the options say, write the files that they name, and return the token.

    The result is the detached EAT as a JSON value, or the EAR as a compact JWT. ``key`` is for callers that need the
    key before the evidence (``signing_key``); ``relying_party`` goes into the token (see ``provenance``).

    Raises:
        InputError: a key or an option that cannot be used, or a file that cannot be written.
    """
    import json
    import uuid

    from nvattest.cli.output import write_file
    from nvattest.token.claims import claims_of
    from nvattest.token.ear import sign_ear
    from nvattest.token.eat import sign_detached_eat
    from nvattest.token.provenance import DEFAULT_ISSUER

    key = key if key is not None else signing_key(options)
    issuer = options.issuer or DEFAULT_ISSUER
    # Not --at: that is the time at which the evidence is judged, this is when the token is made.
    now = datetime.now(timezone.utc)
    lifetime = timedelta(seconds=max(min(options.token_lifetime, 2**31), 0))
    version: str = options.claims_version
    claims = claims_of(appraisal, version=version)

    def new_id() -> str:
        return str(uuid.uuid4())

    token: list[object] | str
    if options.token_format == "ear":  # noqa: S105 - a format, not a password
        token = sign_ear(
            appraisal, claims=claims, key=key, now=now, new_id=new_id, issuer=issuer, lifetime=lifetime,
            relying_party=relying_party,
        )  # fmt: skip
    else:
        token = sign_detached_eat(
            appraisal, claims=claims, claims_version=version, key=key, now=now, new_id=new_id, issuer=issuer,
            lifetime=lifetime, relying_party=relying_party,
        )  # fmt: skip
    # The key's public half first: a token that nobody can verify yet is worse than a key without a token.
    if options.jwks_out:
        write_file(options.jwks_out, json.dumps(key.public.jwks(), indent=2) + "\n")
    if options.token_out:
        write_token(options.token_out, token)
    return token


def write_token(path: str, token: object) -> None:
    """Write ``--token-out``: a compact JWT as it is, a detached EAT as JSON.

    Raises:
        InputError: it cannot be written.
    """
    import json

    from nvattest.cli.output import write_file

    write_file(path, (token if isinstance(token, str) else json.dumps(token)) + "\n", mode=0o600)
