"""Tokens at the shell: the key of one that is issued, its files, and its binding to the CPU's quote.

The recipe of the binding is in ``nvattest/token/binding.py``; here it meets files and the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._documents import dump_json
from nvattest.cli.arguments import read_input
from nvattest.cli.output import write_file
from nvattest.cli.sources import cpu_anchors, read_file, wrong_kind
from nvattest.errors import InputError, ParseError, TokenError
from nvattest.token.binding import derive_device_nonce, evidence_digest_of, report_data
from nvattest.token.keys import MAXIMUM_PEM, SigningKey
from nvattest.token.provenance import DEFAULT_ISSUER

if TYPE_CHECKING:
    from nvattest.appraisal.guest import GuestAppraisal
    from nvattest.appraisal.results import Appraisal
    from nvattest.cli.requests import BindingRequest, GuestRequest, TokenRequest
    from nvattest.evidence import Evidence
    from nvattest.model import Nonce
    from nvattest.tee.collateral import CpuCollateral
    from nvattest.tee.guest import Guest
    from nvattest.tee.quote import BindingCheck
    from nvattest.tee.recipes import Recipe
    from nvattest.testing import SimulatedGuest
    from nvattest.token.verified import VerifiedToken

# Of a recipe's input: raw evidence of a platform is the largest.
MAXIMUM_INPUT: Final = 16 * 1024 * 1024


def signing_key(path: str | None) -> SigningKey:
    """The key of ``--signing-key``, or a new one.

    Raises:
        InputError: the file holds no private P-384 key.
    """
    if path is None:
        return SigningKey.generate()
    return read_file("--signing-key", path, MAXIMUM_PEM, SigningKey.from_pem, "private-key")


def overall_claims(appraisal: Appraisal, request: TokenRequest) -> dict[str, object]:
    """What the overall token says of the result; the subject of the overall section of JSON policies."""
    from nvattest.token.eat import SUBJECT

    return {
        "iss": request.issuer or DEFAULT_ISSUER,
        "sub": SUBJECT,
        "x-nvidia-ver": request.claims_version,
        "x-nvidia-overall-att-result": appraisal.trusted,
        "eat_nonce": appraisal.nonce.hex() if appraisal.nonce is not None else None,
    }


def make_token(
    appraisal: Appraisal, request: TokenRequest, key: SigningKey, relying_party: Mapping[str, object] | None = None
) -> list[object] | str:
    """Sign the appraisal, write the files that the request names, and return the token.

    The result is the detached EAT as a JSON value, or the EAR as a compact JWT. ``relying_party`` goes into the token
    (see ``provenance``).

    Raises:
        InputError: an option that cannot be used, or a file that cannot be written.
    """
    from nvattest.session import issue_token

    token = issue_token(
        appraisal,
        key,
        ear=request.token_format == "ear",  # noqa: S105 - a format, not a password
        claims_version=request.claims_version,
        issuer=request.issuer,
        lifetime=timedelta(seconds=max(min(request.token_lifetime, 2**31), 0)),
        relying_party=relying_party,
    )
    # The public half of the key is written first: a token must not appear before its key.
    if request.jwks_out:
        write_file(request.jwks_out, json.dumps(key.public.jwks(), indent=2) + "\n")
    if request.token_out:
        write_token(request.token_out, token)
    return token


def write_token(path: str, token: object) -> None:
    """Write ``--token-out``: a compact JWT as it is, a detached EAT as JSON.

    Raises:
        InputError: it cannot be written.
    """
    write_file(path, (token if isinstance(token, str) else json.dumps(token)) + "\n", mode=0o600)


# --- binding to the CPU TEE -------------------------------------------------------------------------------------------


class Binding(NamedTuple):
    """A binding that was asked for, the thumbprint of the token's key, and the nonce that follows."""

    request: BindingRequest
    challenge: bytes
    thumbprint: bytes
    nonce: Nonce

    def take_quote(self, evidence: tuple[Evidence, ...], *, guest: SimulatedGuest | None = None) -> None:
        """Take the quote over the evidence and write it beside the token, before anything is verified.

        A simulated guest gives it in the place of the kernel.

        Raises:
            CollectionError: no quote, or no register to extend.
            InputError: the file cannot be written.
        """
        if not self.request.bind_tee:
            return
        from nvattest.tee import tsm
        from nvattest.tee.quote import dump_quote

        digest = evidence_digest_of([(item.report, item.certificate_chain) for item in evidence])
        if self.request.extend_rtmr is not None:
            tsm.extend_register(digest, register=int(self.request.extend_rtmr))
        covered = report_data(self.challenge, self.thumbprint, digest)
        root = self.request.tsm_root or tsm.DEFAULT_ROOT
        quote = tsm.take_quote(covered, root=root) if guest is None else guest.take_quote(covered)
        write_file(self.request.bind_tee, dump_json(dump_quote(quote)) + "\n", mode=0o600)


def requested_binding(request: BindingRequest, nonce: str, key: SigningKey | None) -> Binding | None:
    """The binding that is asked for, or None.

    Raises:
        InputError: options that do not belong together.
    """
    if request.challenge is None:
        if request.bind_tee or request.extend_rtmr is not None:
            raise InputError("--bind-tee and --extend-rtmr need a --challenge", code="binding")
        return None
    if nonce:
        raise InputError("--challenge makes the nonce: leave out --nonce", code="binding")
    if key is None:
        raise InputError(
            "--challenge needs a token, whose key it binds", code="binding", hint="name one with --token-out"
        )
    thumbprint = key.public.thumbprint_bytes
    return Binding(request, request.challenge, thumbprint, derive_device_nonce(request.challenge, thumbprint))


def requested_recipe(request: GuestRequest) -> Recipe | None:
    """How the quote's report data is computed, or None where no quote is given.

    Raises:
        InputError: a recipe or an input of it that cannot be used.
    """
    from nvattest.tee.recipes import Challenge, ExpectedReportData, recipe_from_inputs

    if request.tee_quote is None:
        return None
    if request.expected_report_data is not None:
        return ExpectedReportData(report_data=request.expected_report_data)
    if request.tee_recipe is None:
        return Challenge(challenge=request.challenge or b"")
    inputs: dict[str, str | bytes] = {}
    for given in request.tee_input or ():
        name, equals, value = given.partition("=")
        if not equals or name in inputs:
            wrong = "is given twice" if equals else "has no value"
            raise InputError(f"--tee-input {name[:80]} {wrong}", code="recipe-input", hint="write NAME=VALUE once")
        inputs[name] = read_input(value[1:], MAXIMUM_INPUT) if value.startswith("@") else value
    return recipe_from_inputs(request.tee_recipe, inputs)


def requested_guest(request: GuestRequest, recipe: Recipe | None, *, at: datetime | None) -> Guest | None:
    """The guest that is to be judged, or None where no CPU policy says what is demanded of it.

    Raises:
        InputError, PolicyError: a file that cannot be used.
    """
    if request.cpu_policy is None or request.tee_quote is None or recipe is None:
        return None
    from nvattest.policy.cpu_policy import load_cpu_policy
    from nvattest.policy.fields import MAXIMUM
    from nvattest.tee.guest import Guest
    from nvattest.tee.quote import MAXIMUM_FILE

    path = request.cpu_policy
    quote = read_input(request.tee_quote, MAXIMUM_FILE)
    # A quote that cannot be read is a verdict on its guest; another kind of file is a slip of the caller.
    other = wrong_kind(InputError("", code="format"), quote, "--tee-quote", request.tee_quote, "quote")
    if other is not None:
        raise other
    return Guest(
        quote=quote,
        policy=read_file("--cpu-policy", path, MAXIMUM, partial(load_cpu_policy, source=path), "cpu-policy"),
        recipe=recipe,
        collateral=_cpu_collateral(request.tee_collateral or (), quote),
        anchors=cpu_anchors(request.cpu_anchors),
        at=at,
    )


def _cpu_collateral(paths: Sequence[str], quote: bytes) -> CpuCollateral | None:
    """The collateral of all files together: one document of Intel's, or certificates and lists of AMD's.

    Of a bundle it is what belongs to the quote.

    Raises:
        InputError: several documents, those of both makers, or a bundle with nothing for the quote (code
            ``collateral-format``).
    """
    from nvattest.collateral.bundle import MAXIMUM_BUNDLE
    from nvattest.session import parse_collateral
    from nvattest.tee.collateral import SnpCollateral
    from nvattest.tee.quote import parse_quote, read_quote

    try:
        parse_quote(read_quote(quote))
    except ParseError:
        # What belongs to it cannot be known. Its own check says why.
        return None
    parse = partial(parse_collateral, quote=quote)
    wanted = ("cpu-collateral", "certificates", "bundle")
    read = [read_file("--tee-collateral", path, MAXIMUM_BUNDLE, parse, *wanted) for path in paths]
    amd = [item for item in read if isinstance(item, SnpCollateral)]
    if len(read) > 1 and len(amd) != len(read):
        raise InputError("--tee-collateral: one document of Intel's, or files of AMD's", code="collateral-format")
    return sum(amd, SnpCollateral()) if amd else read[0] if read else None


def check_quote(verified: VerifiedToken, recipe: Recipe, nonce: Nonce, path: str) -> BindingCheck:
    """Compare a quote with what this verified token says it has to cover. The quote itself is not verified.

    Raises:
        TokenError: the token names no evidence digest, or the quote does not cover what it has to.
        ParseError: the file is no quote that is known here.
    """
    from nvattest.tee.guest import check_answers
    from nvattest.tee.quote import MAXIMUM_FILE, check_binding, read_quote
    from nvattest.token.verify import device_side

    devices = device_side(verified, nonce)
    try:
        demand = recipe.demand(devices)
    except InputError as error:
        raise TokenError(error.message, code=error.code, hint=error.hint) from None
    check = read_file(
        "--tee-quote", path, MAXIMUM_FILE, lambda data: check_binding(read_quote(data), demand.report_data), "quote"
    )
    if not check.ok:
        hint = "the quote belongs to another run, another key or another challenge"
        raise TokenError(check.detail, code="binding", hint=hint)
    answers = check_answers(demand, devices)
    if not answers.acceptable:
        raise TokenError(answers.detail, code="binding", hint=answers.hint)
    return check


def guest_binding_to_json(guest: GuestAppraisal) -> dict[str, object]:
    """The members of ``binding_to_json``, but for ``version``, where the quote itself was judged."""
    facts = guest.facts
    return {
        "holds": guest.passed("guest-binding"),
        "quote_signature_verified": guest.quote_verified,
        "note": guest.sentence,
        "kind": guest.kind or None,
        "measurement": facts.measurement.hex() if facts is not None else None,
        "registers": [register.hex() for register in facts.registers] if facts is not None else [],
    }


def binding_to_json(check: BindingCheck) -> dict[str, object]:
    """A binding that holds, for programs: what to compare further, and what was not verified."""
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
