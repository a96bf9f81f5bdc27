"""``nvattest verify-token``: a token, a key, a nonce; no network unless the URL of a JWKS or of a service is given.

Exit status as NVIDIA's ``verify-token``: 0 good, 1 the token must not be believed (or an argument is unusable), 2 the
relying party's policy says no, 3 the token is genuine and says that the result is bad.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._documents import file_text
from nvattest._text import clean, hex_bytes, joined
from nvattest.cli import sources
from nvattest.cli.arguments import (
    REQUIRED,
    ArgumentError,
    add_options,
    choice,
    existing_directory,
    flag,
    from_environment,
    given,
    ignored,
    input_file,
    option,
    read,
    read_input,
    warns,
)
from nvattest.cli.output import print_json, report_error, say, voucher
from nvattest.cli.sources import Access
from nvattest.errors import InputError, NvattestError, ParseError, ResultCode, TokenError
from nvattest.model import SIMULATED, Nonce, format_time, parse_time

if TYPE_CHECKING:
    from nvattest.appraisal.guest import GuestFacts
    from nvattest.pki.certificate import Certificate
    from nvattest.tee.collateral import CpuCollateral
    from nvattest.tee.guest import Guest
    from nvattest.tee.quote import BindingCheck, ParsedQuote
    from nvattest.tee.recipes import Recipe
    from nvattest.token.jose import Keyring
    from nvattest.token.verified import VerifiedToken

GOOD, ERROR, POLICY_MISMATCH, RESULT_FALSE = 0, 1, 2, 3
_EAR = "ear"
# NVIDIA's command has these in common with attest and ignores them; scripts that give them go on working.
_COMMON: Mapping[str, Callable[[str], str]] = {
    "verifier": choice("local", "remote"), "rim_store": choice("remote", "dir"), "rim_url": str,
    "rim_dir": existing_directory, "ocsp_url": str, "ocsp_cert_id_hash": choice(*sources.HASHES),
}  # fmt: skip
_SHOWN = "ueid", "hwmodel", "measres"
_WIDTH = 64
_MAXIMUM_ROOTS = 64 * 1024
# Of a recipe's input: raw evidence of a platform is the largest.
_MAXIMUM_INPUT = 16 * 1024 * 1024


class Times(NamedTuple):
    """The instants at which token and quote are judged; None for the token is now, for the quote the token's."""

    token: datetime | None
    quote: datetime | None


def _times(text: str) -> Times:
    """``TIME``, or one or both of ``token=TIME`` and ``quote=TIME``."""
    if "=" not in text:
        return Times(parse_time(text), None)
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    parts = dict(pairs)
    if not parts.keys() <= {"token", "quote"} or len(parts) != len(pairs):
        raise InputError(f"not a time: {text[:120]!r}", code="time", hint="give TIME or token=TIME,quote=TIME")
    token, quote = (parse_time(parts[name]) if name in parts else None for name in ("token", "quote"))
    return Times(token, quote)


# Named here so that --help needs no recipe; a test compares them with ``nvattest.tee.recipes``.
RECIPES: Final = ("coco-rcar", "tinfoil-v3", "address-nonce", "near", "chutes")


def _report_data(text: str) -> bytes:
    value = hex_bytes(text)
    if value is None or len(value) != 64:
        raise InputError(f"not 64 bytes of report data: {text[:80]!r}", code="report-data", hint="give 128 hex digits")
    return value


class GuestRequest(NamedTuple):
    """What ties the devices to a guest: its CPU's quote, how its report data is computed, and what is demanded."""

    challenge: bytes | None
    tee_quote: str | None = option(
        "FILE", "the quote of --bind-tee (or a raw one): check what it covers; with --cpu-policy also judge the guest",
        input_file,
    )  # fmt: skip
    cpu_policy: str | None = option(
        "FILE", "what is demanded of the guest; the quote's signature and all that endorses it are then verified",
        input_file,
    )  # fmt: skip
    tee_collateral: list[str] | None = option(
        "FILE", "the CPU maker's collateral: Intel's JSON document, AMD's certificates and list (repeat it), a bundle",
        input_file, many=True,
    )  # fmt: skip
    expected_report_data: bytes | None = option(
        "HEX", "your own recipe's result, in the place of --challenge", _report_data
    )
    tee_recipe: str | None = option("NAME", "a known recipe in its place: " + ", ".join(RECIPES), choice(*RECIPES))
    tee_input: list[str] | None = option("NAME=VALUE", "an input of the recipe; @FILE reads its value", many=True)
    cpu_anchors: str | None = option("PEM", "for tests: judge the quote by these roots, not by the makers'", input_file)


# The options that each of these needs beside it.
_NEEDS = {
    "--tee-input": ["--tee-recipe"],
    "--cpu-policy": ["--tee-quote"],
    "--tee-collateral": ["--cpu-policy"],
    "--cpu-anchors": ["--cpu-policy"],
    "--expected-report-data": ["--tee-quote", "--nonce"],
    "--tee-recipe": ["--tee-quote", "--nonce"],
}


class Keys(NamedTuple):
    """Where the issuer's keys come from."""

    access: Access
    nras_url: str = option(
        "URL", "the issuer is this service; its keys are fetched unless given below (NVAT_NRAS_BASE_URL, asked where "
        "neither an issuer nor a key is named)", default="",
    )  # fmt: skip
    jwks: str = option("FILE|URL", "keys of the issuer; fetched if it begins https://", default="")
    key: str | None = option("PEM", "the public key of the issuer", input_file)
    x5c_anchors: str | None = option(
        "PEM", "validate certificate chains of token keys to these; without --jwks the chain in the token", input_file
    )

    @property
    def given(self) -> bool:
        """Whether keys are named, so that no service is asked for its own."""
        return bool(self.jwks) or self.key is not None or self.x5c_anchors is not None


class Request(NamedTuple):
    """The token, and what is expected of it."""

    token_file: str
    keys: Keys
    guest: GuestRequest
    as_json: bool
    token_type: str | None = option(
        "TYPE", "refuse tokens of another type: detached-eat or ear", choice("detached-eat", "ear")
    )
    nonce: str = option("HEX", "the nonce that was asked for", default="")
    challenge: bytes | None = option(
        "HEX", "your challenge, in the place of --nonce: the nonce is derived from it and from the token's key",
        sources.challenge,
    )  # fmt: skip
    issuer: str = option("TEXT", "iss of the token (NVATTEST-LOCAL-VERIFIER)", default="")
    clock_skew_leeway_seconds: int = option("SECONDS", "how far clocks may differ (60)", int, 60)
    at: Times | None = option(
        "TIME", "judge at this time; now by default; token=TIME,quote=TIME for one that was recorded apart",
        _times,
    )  # fmt: skip
    relying_party_policy: str | None = option("FILE", "apply this policy too", input_file)
    expected_devices: int | None = option("N", "refuse another number of GPUs and switches together", int)
    expected_gpus: int | None = option("N", "refuse another number of GPUs", int)
    expected_switches: int | None = option("N", "refuse another number of NVSwitches", int)
    accept_simulated: bool = flag("for tests: accept tokens about simulated devices")
    refuse_weakened: bool = flag(
        "refuse a token of a weakened policy, of other trust anchors than NVIDIA's, or of another remote service; "
        "and a weakened CPU policy"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    token = parser.add_argument_group("token")
    token.add_argument("file", nargs="?", metavar="FILE", help="the token; - or nothing is standard input")
    token.add_argument("--token-file", default="-", metavar="FILE", help="the same, as NVIDIA's program has it")
    add_options(parser.add_argument_group("what is expected"), Request)
    add_options(parser.add_argument_group("the guest"), GuestRequest)
    add_options(parser.add_argument_group("keys, at least one of them"), Keys)
    sources.add_access_options(parser.add_argument_group("where keys are fetched"))
    for name, kind in _COMMON.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Verify, print, and give the verdict as the exit status."""
    request = _request(options)
    check, code, status = None, ResultCode.OK, GOOD
    try:
        recipe = requested_recipe(request.guest)
        verified, nonce, at = _verify(
            request, requested_guest(request.guest, recipe, at=request.at and request.at.quote)
        )
        if recipe is not None and request.guest.tee_quote is not None and verified.guest is None:
            check = check_quote(verified, recipe, nonce, request.guest.tee_quote)
            say(f"binding: {check.detail}; {check.note}", error=True)
        if request.relying_party_policy is not None and not _policy_agrees(request.relying_party_policy, verified):
            code, status = ResultCode.RP_POLICY_MISMATCH, POLICY_MISMATCH
        elif not verified.trusted:
            code, status = verified.result_code, RESULT_FALSE
    except NvattestError as error:
        members: dict[str, object] = {_EAR if request.token_type == _EAR else "claims": {}}
        report_error(error, "NOT BELIEVED", "verify-token", members, as_json=request.as_json)
        return ERROR
    if request.as_json:
        print_json("verify-token", _facts(verified, check, at), code=code)
    else:
        verdict = {GOOD: "TRUSTED", POLICY_MISMATCH: "REFUSED BY THE POLICY"}.get(status, "NOT TRUSTED")
        marked = " (simulated)" if verified.simulated else ""
        result = f"Result: {verdict}{marked}, code {int(code)} ({code.message})"
        say(joined([*_lines(verified, at, request.keys.access), result]))
    return status


def _request(options: argparse.Namespace) -> Request:
    """The request."""
    if bool(options.nonce) == (options.challenge is not None):
        raise ArgumentError(
            "exactly one of --nonce and --challenge is required: a token for no request of yours proves nothing",
            REQUIRED,
        )
    guest, keys = read(GuestRequest, options), read(Keys, options, access=read(Access, options))
    named = given(options, "nonce", *GuestRequest._fields)
    if "--tee-quote" in named and len({"--challenge", "--expected-report-data", "--tee-recipe"} & {*named}) != 1:
        raise ArgumentError(
            "--tee-quote is required to come with exactly one of --challenge, --expected-report-data and --tee-recipe",
            REQUIRED,
        )
    for name in named:
        if missing := [needed for needed in _NEEDS.get(name, ()) if needed not in named]:
            raise ArgumentError(f"{name} is required to come with {missing[0]}", REQUIRED)
    if options.issuer and keys.nras_url:
        raise ArgumentError("--issuer and --nras-url say the same thing; give one")
    if keys.key is not None and (keys.jwks or keys.x5c_anchors is not None):
        raise ArgumentError("--key stands alone: leave out --jwks and --x5c-anchors")
    if options.file is not None and given(options, "token_file"):
        raise ArgumentError("FILE and --token-file: one token is verified at a time")
    if options.at is not None and options.at.quote is not None and guest.cpu_policy is None and warns(options):
        say("warning: quote= of --at is ignored: no guest is judged without --cpu-policy", error=True)
    ignored(options, _COMMON, "it is about evidence; a token is verified with its issuer's keys")
    if not keys.nras_url and not keys.jwks.startswith("https://") and (options.issuer or keys.given):
        ignored(options, Access._fields, "no key is fetched")
    path = options.file if options.file is not None else options.token_file
    return read(Request, options, token_file=path, guest=guest, keys=keys, as_json=options.format == "json")


def _verify(request: Request, guest: Guest | None) -> tuple[VerifiedToken, Nonce, datetime]:
    """The token, its nonce, and the instant at which it was checked."""
    data = _read_token(request.token_file)
    try:
        return _verify_data(data, request, guest)
    except TokenError as error:
        other = None
        if error.code == "malformed":
            other = sources.wrong_kind(error, data, "FILE", request.token_file, "token")
        raise other or error from None


def _verify_data(data: bytes, request: Request, guest: Guest | None) -> tuple[VerifiedToken, Nonce, datetime]:
    """The token, its nonce and the instant: the clock is read when token and keys are there."""
    from nvattest.token.claims import DEFAULT_ISSUER
    from nvattest.token.verified import Expected, Rules, TokenKind
    from nvattest.token.verify import nonce_of_token, read_document, unverified, verify_token

    # Parsed first, so that malformed input causes no request.
    token, found = read_document(file_text(data))
    thumbprint: bytes | None = None
    if request.challenge is not None:
        nonce, thumbprint = nonce_of_token(token, request.challenge)
    else:
        with sources.naming("--nonce"):
            nonce = Nonce.from_hex(request.nonce)
    kind = TokenKind(request.token_type) if request.token_type is not None else None
    service = _service(request)
    keys = _keyring(request.keys, service)
    if service and found is TokenKind.DETACHED_EAT and kind in (None, found):
        # What the service says of its own anchors is not what NVIDIA's service would vouch for.
        kind = TokenKind.NRAS
    issuer = request.issuer or service or request.keys.nras_url.rstrip("/") or None
    if issuer is None and "iss" in unverified(token).payload:
        # Our own where none is expected by name. NVAT's EARs name none, and the key alone says whose they are.
        issuer = DEFAULT_ISSUER
    at = (request.at and request.at.token) or datetime.now(timezone.utc)
    leeway = timedelta(seconds=max(min(request.clock_skew_leeway_seconds, 2**31), -1))
    verified = verify_token(
        token,
        rules=Rules(issuer=issuer, nonce=nonce, at=at, leeway=leeway),
        keys=keys,
        expected=Expected(request.expected_devices, request.expected_gpus, request.expected_switches),
        accept_simulated=request.accept_simulated,
        refuse_weakened=request.refuse_weakened,
        kind=kind,
        guest=guest,
    )
    if service and keys.jwks is not None:
        from nvattest.collateral.nras import check_own_chains, key_ids

        check_own_chains({"keys": [*keys.jwks.values()]}, key_ids(token), at)
    if thumbprint is not None and verified.key.thumbprint_bytes != thumbprint:
        raise TokenError("the key that signed the token is not the one that its header names", code="binding-key")
    return verified, nonce, at


def _service(request: Request) -> str:
    """The service whose keys are to be fetched, as its tokens name it, or nothing."""
    if request.keys.given:
        return ""
    # The variable is also there for attest: it counts where nothing on the command line says whose token this is.
    url = request.keys.nras_url or ("" if request.issuer else from_environment("NVAT_NRAS_BASE_URL", ""))
    if not url:
        return ""
    from nvattest.collateral.nras import service_url

    return service_url(url)


def _keyring(keys: Keys, service: str) -> Keyring:
    """The keys that the options name, or that the service publishes."""
    from nvattest.pki.certificate import parse_pem_chain
    from nvattest.token.jose import MAXIMUM_ANCHORS, MAXIMUM_JWKS, MAXIMUM_PEM, Keyring, PublicKey, parse_jwks

    jwks = url = key = None
    anchors: tuple[Certificate, ...] = ()
    if service:
        from nvattest.collateral.nras import JWKS_PATH

        url = service + JWKS_PATH
        jwks = parse_jwks(_fetch(url, keys.access, service))
    elif keys.jwks.startswith("https://"):
        url = keys.jwks
        jwks = parse_jwks(_fetch(url, keys.access, keys.nras_url))
    elif "://" in keys.jwks:
        raise InputError(f"a JWKS is fetched over https only, not from {keys.jwks[:80]!r}", code="jwks-url")
    elif keys.jwks:
        jwks = sources.read_file("--jwks", keys.jwks, MAXIMUM_JWKS, lambda data: parse_jwks(file_text(data)), "jwks")
    if keys.key is not None:
        key = sources.read_file("--key", keys.key, MAXIMUM_PEM, PublicKey.from_pem, "public-key")
    if keys.x5c_anchors is not None:
        parse = partial(parse_pem_chain, maximum=MAXIMUM_ANCHORS)
        anchors = sources.read_file("--x5c-anchors", keys.x5c_anchors, _MAXIMUM_ROOTS, parse, "certificates")
    return Keyring(jwks=jwks, key=key, anchors=anchors, url=url)


def _read_token(path: str) -> bytes:
    from nvattest.token.jose import MAXIMUM_TOKEN

    # Read one byte past the limit to detect oversized input.
    maximum = MAXIMUM_TOKEN + 1
    token = sys.stdin.buffer.read(maximum) if path in ("-", "") else read_input(path, maximum)
    if not token.strip():
        raise InputError("there is no token", code="file", hint="name its file, or give it on stdin")
    return token


def _fetch(url: str, access: Access, key_host: str) -> bytes:
    """The JWKS at a URL: TLS verified, no redirects, a bounded answer within 30 s; only the service sees its key."""
    from nvattest._waiting import Deadline
    from nvattest.collateral.http import HttpClient, Service
    from nvattest.token.jose import MAXIMUM_JWKS

    service = Service(name="JWKS", option="--jwks", maximum=MAXIMUM_JWKS, failed=ResultCode.VERIFIER_JWKS_ERROR)
    with HttpClient(access.http(*filter(None, [key_host]))) as client:
        return client.fetch(service, url, Deadline(30))


def _policy_agrees(path: str, verified: VerifiedToken) -> bool:
    """What the relying party's policy says of the claims array, or of the whole EAR as NVIDIA has it."""
    from nvattest.policy.isolation import evaluate_bounded
    from nvattest.token.verified import TokenKind

    policy = sources.read_policy(path)
    document = verified.payload if verified.kind is TokenKind.EAR else verified.claims
    decision = evaluate_bounded(policy, document, verified.payload)
    for reason in decision.reasons:
        say(f"policy: {clean(reason, 300)}", error=True)
    return decision.matched is True


def requested_recipe(request: GuestRequest) -> Recipe | None:
    """How the quote's report data is computed, or None where no quote is given."""
    from nvattest.tee.recipes import Challenge, ExpectedReportData, recipe_from_inputs

    if request.tee_quote is None:
        return None
    if request.expected_report_data is not None:
        return ExpectedReportData(report_data=request.expected_report_data)
    if request.tee_recipe is None:
        return Challenge(challenge=request.challenge or b"")
    inputs: dict[str, str | bytes] = {}
    for text in request.tee_input or ():
        name, equals, value = text.partition("=")
        if not equals or name in inputs:
            wrong = "is given twice" if equals else "has no value"
            raise InputError(f"--tee-input {name[:80]} {wrong}", code="recipe-input", hint="write NAME=VALUE once")
        inputs[name] = read_input(value[1:], _MAXIMUM_INPUT) if value.startswith("@") else value
    return recipe_from_inputs(request.tee_recipe, inputs)


def requested_guest(request: GuestRequest, recipe: Recipe | None, *, at: datetime | None) -> Guest | None:
    """The guest that is to be judged, or None where no CPU policy says what is demanded of it."""
    if request.cpu_policy is None or request.tee_quote is None or recipe is None:
        return None
    from nvattest.policy.cpu_policy import load_cpu_policy
    from nvattest.policy.evidence_policy import MAXIMUM
    from nvattest.tee.guest import Guest
    from nvattest.tee.quote import MAXIMUM_FILE

    path = request.cpu_policy
    quote = read_input(request.tee_quote, MAXIMUM_FILE)
    # A quote that cannot be read is a verdict on its guest; another kind of file is a slip of the caller.
    other = sources.wrong_kind(InputError("", code="format"), quote, "--tee-quote", request.tee_quote, "quote")
    if other is not None:
        raise other
    return Guest(
        quote=quote,
        policy=sources.read_file("--cpu-policy", path, MAXIMUM, partial(load_cpu_policy, source=path), "cpu-policy"),
        recipe=recipe,
        collateral=_cpu_collateral(request.tee_collateral or (), quote),
        anchors=sources.cpu_anchors(request.cpu_anchors),
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
    from nvattest.tee.quote import parse_quote, read_quote_file

    try:
        parse_quote(read_quote_file(quote).quote)
    except ParseError:
        # What belongs to it cannot be known. Its own check says why.
        return None
    parse = partial(parse_collateral, quote=quote)
    wanted = ("cpu-collateral", "certificates", "bundle")
    read = [sources.read_file("--tee-collateral", path, MAXIMUM_BUNDLE, parse, *wanted) for path in paths]
    amd = [item for item in read if isinstance(item, SnpCollateral)]
    if len(read) > 1 and len(amd) != len(read):
        raise InputError("--tee-collateral: one document of Intel's, or files of AMD's", code="collateral-format")
    if amd:
        return sum(amd, SnpCollateral())
    return read[0] if read else None


def check_quote(verified: VerifiedToken, recipe: Recipe, nonce: Nonce, path: str) -> BindingCheck:
    """Compare a quote with what this verified token says it has to cover. The quote itself is not verified.

    Raises:
        TokenError: the token names no evidence digest, or the quote does not cover what it has to.
        ParseError: the file is no quote that is known here.
    """
    from nvattest.tee.guest import check_answers
    from nvattest.tee.quote import MAXIMUM_FILE, check_binding, read_quote_file
    from nvattest.token.verify import device_side

    devices = device_side(verified, nonce)
    try:
        demand = recipe.demand(devices)
    except InputError as error:
        raise TokenError(error.message, code=error.code, hint=error.hint) from None
    check = sources.read_file(
        "--tee-quote",
        path,
        MAXIMUM_FILE,
        lambda data: check_binding(read_quote_file(data).quote, demand.report_data),
        "quote",
    )
    if not check.ok:
        hint = "the quote belongs to another run, another key or another challenge"
        raise TokenError(check.detail, code="binding", hint=hint)
    answers = check_answers(demand, devices)
    if not answers.acceptable:
        raise TokenError(answers.detail, code="binding", hint=answers.hint)
    return check


def _lines(verified: VerifiedToken, at: datetime, access: Access) -> list[str]:
    span = f"issued {format_time(verified.issued)}, good until {format_time(verified.expires)}"
    lines = [
        f"{verified.kind.value} of {clean(verified.issuer, 256) or 'an issuer without a name'}, {span}",
        f"checked at {format_time(at)}",
        f"signed by {verified.key.thumbprint}",
        f"key: {verified.key_source}{_service_of(verified)}",
    ]
    if (roots := access.roots(verified.key_url)) is not None:
        lines.append(f"TLS roots: {roots}")
    if verified.wrapper is not None:
        lines.append(f"taken out of {verified.wrapper} of a Python SDK's token, whose own signature proves nothing")
    if verified.anchors is not None:
        marked = f"   {SIMULATED}" if verified.simulated else ""
        lines.append(f"trust anchors: {clean(verified.anchors, _WIDTH)}{marked}")
    if verified.at is not None:
        lines.append(f"judged at {verified.at}")
    if verified.weakened:
        lines.append(f"weakened: {', '.join(clean(name, _WIDTH) for name in verified.weakened)}")
    for label, claims in zip(verified.labels, verified.claims, strict=True):
        words = [f"{name} {clean(str(claims[name]), _WIDTH)}" for name in _SHOWN if name in claims]
        status = verified.statuses.get(label, "")
        lines.append("  ".join(("", label, *([status] if status else []), *words)))
        if not verified.overall:
            lines += [f"    false: {clean(name, _WIDTH)}" for name, value in claims.items() if value is False]
    others = [item for item in verified.statuses.items() if item[0] not in verified.labels]
    lines += [f"  {clean(label, _WIDTH)}  {word}" for label, word in others]
    lines += [f"  {refusal}" for refusal in verified.refusals]
    if not verified.overall:
        lines.append("  next: the attester's own result has every check: nvattest explain result.json")
    if verified.guest is None:
        return lines
    from nvattest.report.text import saved_guest_account

    lines += ["", *saved_guest_account(verified.guest)]
    guest = verified.guest
    # A guest that anyone may have made, or whose host reads it, could write any token and name its key.
    if guest.trusted and guest.passed("guest-key") and guest.recipe == "nvattest" and not guest.weakened:
        lines.append("  the quote covers the token's key: a key set from the attester itself may be believed")
    return lines


def _service_of(verified: VerifiedToken) -> str:
    from nvattest.token.verified import NVIDIA_ISSUER

    if verified.of_nvidia:
        return "; NVIDIA's own service"
    unproven = verified.issuer == NVIDIA_ISSUER and verified.key_url is None
    return "; that it is of NVIDIA's service is the caller's word" if unproven else ""


def _facts(verified: VerifiedToken, check: BindingCheck | None, at: datetime) -> dict[str, object]:
    from nvattest.appraisal.results import guest_to_json
    from nvattest.token.verified import TokenKind

    is_ear, guest = verified.kind is TokenKind.EAR, verified.guest
    facts: dict[str, object] = {"ear": verified.payload} if is_ear else {"claims": list(verified.claims)}
    if check is not None:
        quote = check.quote
        binding = _binding(quote, holds=check.ok, note=check.note, kind=quote.kind.value)
        facts["binding"] = {**binding, "quote_signature_verified": False, "version": quote.version}
    if guest is not None:
        binding = _binding(
            guest.facts, holds=guest.passed("guest-binding"), note=guest.sentence, kind=guest.kind or None
        )
        facts["binding"] = {**binding, "quote_signature_verified": guest.quote_verified}
        facts["guest"] = guest_to_json(guest)
    if verified.refusals:
        facts["refusals"] = [refusal.to_json() for refusal in verified.refusals]
    digest = verified.evidence_digest
    facts["token"] = {
        **voucher(verified),
        "kind": verified.kind.value,
        "overall": verified.overall,
        "expires": format_time(verified.expires),
        "checked_at": format_time(at),
        "labels": list(verified.labels),
        "key_thumbprint": verified.key.thumbprint,
        "weakened": list(verified.weakened),
        "evidence_digest": digest.hex() if digest is not None else None,
        "statuses": dict(verified.statuses),
        "wrapper": verified.wrapper,
    }
    return facts


def _binding(quote: ParsedQuote | GuestFacts | None, *, holds: bool, note: str, kind: str | None) -> dict[str, object]:
    """What of a quote is to be compared further."""
    return {
        "holds": holds,
        "note": note,
        "kind": kind,
        "measurement": quote.measurement.hex() if quote is not None else None,
        "registers": [register.hex() for register in quote.registers] if quote is not None else [],
    }
