"""Binding to the CPU TEE at the shell: ``attest --challenge --bind-tee`` and ``verify-token --challenge --tee-quote``.

The recipe is in ``nvattest/token/binding.py``; here it meets options, files and the kernel.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvattest._text import base64_bytes, hex_bytes
from nvattest.cli.arguments import choice, converted, existing_file
from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.evidence import Evidence
    from nvattest.model import Nonce
    from nvattest.tee.quote import BindingCheck
    from nvattest.token.keys import SigningKey
    from nvattest.token.verified import VerifiedToken


def _challenge(text: str) -> bytes:
    value = hex_bytes(text)
    if not value:
        raise InputError(f"not a hexadecimal challenge: {text[:80]!r}", code="challenge")
    return value


def add_attest_options(parser: argparse.ArgumentParser) -> None:
    """What binds the token to the CPU."""
    group = parser.add_argument_group("binding to the CPU TEE")
    group.add_argument(
        "--challenge", type=converted(_challenge), metavar="HEX",
        help="the relying party's challenge; the devices' nonce is derived from it and from the token's key",
    )  # fmt: skip
    group.add_argument(
        "--bind-tee", default="", metavar="FILE",
        help="write a quote of the CPU here that covers the challenge, the token's key and all raw evidence",
    )  # fmt: skip
    group.add_argument("--tsm-root", default="", metavar="DIR", help="where the kernel gives quotes (configfs-tsm)")
    group.add_argument(
        "--extend-rtmr", type=choice("2", "3"), metavar="N",
        help="extend this runtime register with the evidence digest first, where the kernel offers registers",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A binding that was asked for: the challenge, the thumbprint of the token's key, the nonce that follows."""

    challenge: bytes
    thumbprint: bytes
    nonce: Nonce

    def take_quote(self, evidence: tuple[Evidence, ...], options: argparse.Namespace) -> None:
        """Take the quote over the evidence and write it beside the token, before anything is verified.

        Raises:
            CollectionError: no quote, or no register to extend.
            InputError: the file cannot be written.
        """
        if not options.bind_tee:
            return
        from nvattest._documents import dump_json
        from nvattest.cli.output import write_file
        from nvattest.tee import rtmr, tsm
        from nvattest.tee.document import dump_quote
        from nvattest.token.binding import evidence_digest_of, report_data

        digest = evidence_digest_of([(item.report, item.certificate_chain) for item in evidence])
        if options.extend_rtmr is not None:
            rtmr.extend(digest, register=int(options.extend_rtmr))
        quote = tsm.take_quote(
            report_data(self.challenge, self.thumbprint, digest), root=options.tsm_root or tsm.DEFAULT_ROOT
        )
        write_file(options.bind_tee, dump_json(dump_quote(quote)) + "\n", mode=0o600)


def requested(options: argparse.Namespace, key: SigningKey | None) -> Binding | None:
    """The binding that the options ask for, or None.

    Raises:
        InputError: options that do not belong together.
    """
    if options.challenge is None:
        if options.bind_tee or options.extend_rtmr is not None:
            raise InputError("--bind-tee and --extend-rtmr need a --challenge", code="binding")
        return None
    if options.nonce:
        raise InputError("--challenge makes the nonce: leave out --nonce", code="binding")
    if key is None:
        raise InputError(
            "--challenge needs a token, whose key it binds", code="binding", hint="name one with --token-out"
        )
    from nvattest.token.binding import derive_device_nonce

    thumbprint = key.public.thumbprint_bytes
    nonce = derive_device_nonce(options.challenge, thumbprint)
    return Binding(challenge=options.challenge, thumbprint=thumbprint, nonce=nonce)


def add_verify_options(group: argparse._ArgumentGroup) -> None:
    """What a token is compared with."""
    group.add_argument(
        "--challenge", type=converted(_challenge), metavar="HEX",
        help="your challenge, in the place of --nonce: the nonce is derived from it and from the token's key",
    )  # fmt: skip
    group.add_argument(
        "--tee-quote", type=existing_file, metavar="FILE",
        help="the quote of --bind-tee (or a raw one): check that it covers challenge, key and evidence",
    )  # fmt: skip


def nonce_of_token(token: object, challenge: bytes) -> tuple[Nonce, bytes]:
    """The nonce that a token has to carry if its header names its key truly, and that key's thumbprint.

    The header is not believed: the caller compares the thumbprint with the key that verified the token.

    Raises:
        TokenError: the header names no thumbprint (RFC 7638).
    """
    from nvattest.errors import TokenError
    from nvattest.token.binding import derive_device_nonce
    from nvattest.token.verify import unverified_kid

    try:
        thumbprint = base64_bytes(unverified_kid(token), url=True)
    except ValueError:
        thumbprint = b""
    if len(thumbprint) != 32:
        raise TokenError("the token's kid is no key thumbprint (RFC 7638)", code="binding-key")
    return derive_device_nonce(challenge, thumbprint), thumbprint


def check_quote(verified: VerifiedToken, challenge: bytes, path: str) -> BindingCheck:
    """Compare a quote with what this verified token says it has to cover.

    Raises:
        TokenError: the token names no evidence digest, or the quote does not cover what it has to.
        ParseError: the file is no quote that is known here.
    """
    from nvattest.collateral.folders import read_bounded
    from nvattest.errors import TokenError
    from nvattest.tee.document import MAXIMUM, read_quote
    from nvattest.tee.quote import check_binding
    from nvattest.token.binding import report_data

    if verified.evidence_digest is None:
        raise TokenError("the token names no evidence digest", code="binding-digest")
    expected = report_data(challenge, verified.key.thumbprint_bytes, verified.evidence_digest)
    check = check_binding(read_quote(read_bounded(path, MAXIMUM)), expected)
    if not check.ok:
        raise TokenError(
            check.detail,
            code="binding",
            hint="the quote belongs to another run, another key or another challenge",
        )
    return check


def binding_to_json(check: BindingCheck) -> dict[str, object]:
    """A binding that holds, for programs: what to compare further, and what was not looked at."""
    quote = check.quote
    return {
        "holds": check.ok,
        "quote_signature_verified": False,
        "note": check.note,
        "kind": quote.kind.value,
        "version": quote.version,
        "measurement": quote.measurement.hex(),
        "registers": [register.hex() for register in quote.registers],
    }
