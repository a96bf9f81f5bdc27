"""``nvattest verify-token``: a token, a key, a nonce; no network unless the URL of a JWKS or of a service is given.

Exit status as NVIDIA's ``verify-token``: 0 good, 1 the token must not be believed (or an argument is unusable), 2 the
relying party's policy says no, 3 the token is genuine and says that the result is bad.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from nvattest._documents import file_text
from nvattest._text import clean, joined
from nvattest.cli import binding
from nvattest.cli.arguments import (
    REQUIRED,
    VALIDATION,
    ArgumentError,
    choice,
    converted,
    existing_directory,
    existing_file,
    from_environment,
)
from nvattest.cli.network import HASHES, add_access_options, tls_roots
from nvattest.cli.output import report_error, say, times
from nvattest.errors import InputError, NvattestError, ResultCode, TokenError
from nvattest.model import Nonce, format_time, parse_time

if TYPE_CHECKING:
    from nvattest.tee.quote import BindingCheck
    from nvattest.token.verified import VerifiedToken

GOOD, ERROR, POLICY_MISMATCH, RESULT_FALSE = 0, 1, 2, 3
_EAR = "ear"
_SHOWN = "ueid", "hwmodel", "measres"
_WIDTH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    token = parser.add_argument_group("token")
    token.add_argument("--token-file", default="-", metavar="FILE", help="the token; - or nothing is standard input")
    token.add_argument(
        "--token-type", type=choice("detached-eat", _EAR), default=None, metavar="TYPE",
        help="refuse tokens of another type: detached-eat or ear",
    )  # fmt: skip
    expect = parser.add_argument_group("what is expected")
    expect.add_argument("--nonce", default="", metavar="HEX", help="the nonce that was asked for")
    binding.add_verify_options(expect)
    expect.add_argument("--issuer", default="", metavar="TEXT", help="iss of the token (NVATTEST-LOCAL-VERIFIER)")
    expect.add_argument(
        "--expected-devices", type=int, metavar="N", help="refuse another number of GPUs and switches together"
    )
    expect.add_argument("--expected-gpus", type=int, metavar="N", help="refuse another number of GPUs")
    expect.add_argument("--expected-switches", type=int, metavar="N", help="refuse another number of NVSwitches")
    expect.add_argument(
        "--clock-skew-leeway-seconds", type=int, default=60, metavar="SECONDS", help="how far clocks may differ (60)"
    )
    expect.add_argument(
        "--at", type=converted(parse_time), metavar="TIME", help="judge at this time; now by default"
    )  # fmt: skip
    expect.add_argument("--relying-party-policy", type=existing_file, metavar="FILE", help="apply this policy too")
    expect.add_argument(
        "--accept-simulated", action="store_true", help="for tests: accept tokens about simulated devices"
    )
    expect.add_argument(
        "--refuse-weakened", action="store_true",
        help="refuse a token of a weakened policy, of other trust anchors than NVIDIA's, or of another remote service",
    )  # fmt: skip
    keys = parser.add_argument_group("keys, at least one of them")
    keys.add_argument(
        "--nras-url", default="", metavar="URL",
        help="the issuer is this service; its keys are fetched unless given below (NVAT_NRAS_BASE_URL, asked where "
        "neither an issuer nor a key is named)",
    )  # fmt: skip
    keys.add_argument(
        "--jwks", default="", metavar="FILE|URL", help="keys of the issuer; fetched if it begins https://"
    )
    keys.add_argument("--key", type=existing_file, metavar="PEM", help="the public key of the issuer")
    keys.add_argument(
        "--x5c-anchors", type=existing_file, metavar="PEM",
        help="validate certificate chains of token keys to these; without --jwks the chain in the token",
    )  # fmt: skip
    add_access_options(parser.add_argument_group("where keys are fetched"))
    # NVIDIA's command has these in common with attest, and no use for them: a script that gives them goes on working.
    for name, kind in (
        ("--verifier", choice("local", "remote")),
        ("--rim-store", choice("remote", "dir")),
        ("--rim-url", str),
        ("--rim-dir", existing_directory),
        ("--ocsp-url", str),
        ("--ocsp-cert-id-hash", choice(*HASHES)),
    ):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Verify, print, and give the verdict as the exit status."""
    if bool(options.nonce) == (options.challenge is not None):
        raise ArgumentError(
            "exactly one of --nonce and --challenge is required: a token for no request of yours proves nothing",
            REQUIRED,
        )
    if options.tee_quote is not None and options.challenge is None:
        raise ArgumentError("--tee-quote is required to come with --challenge", REQUIRED)
    if options.issuer and options.nras_url:
        raise ArgumentError("--issuer and --nras-url say the same thing; give one", VALIDATION)
    if options.key is not None and (options.jwks or options.x5c_anchors is not None):
        raise ArgumentError("--key stands alone: leave out --jwks and --x5c-anchors", VALIDATION)
    check, code, status = None, ResultCode.OK, GOOD
    try:
        verified, at = _verify(options)
        if options.tee_quote is not None:
            check = binding.check_quote(verified, options.challenge, options.tee_quote)
            say(f"binding: {check.detail}; {check.note}", error=True)
        if options.relying_party_policy is not None and not _policy_agrees(options.relying_party_policy, verified):
            code, status = ResultCode.RP_POLICY_MISMATCH, POLICY_MISMATCH
        elif not verified.overall:
            code, status = verified.result_code, RESULT_FALSE
    except NvattestError as error:
        members: dict[str, object] = {_EAR if options.token_type == _EAR else "claims": {}}
        report_error(error, "NOT BELIEVED", members, as_json=options.format == "json")
        return ERROR
    return _report(verified, check, options, code, status, at=at)


def _verify(options: argparse.Namespace) -> tuple[VerifiedToken, datetime]:
    """The token, and the instant at which it was checked: the clock is read when token and keys are there."""
    from nvattest.collateral.folders import read_bounded
    from nvattest.token.keyring import MAXIMUM_JWKS
    from nvattest.token.keys import MAXIMUM_PEM
    from nvattest.token.verified import TokenKind
    from nvattest.token.verify import read_document, verify_token

    # Read before anybody is asked: for what is no token no key is fetched.
    token, found = read_document(_read_token(options.token_file))
    thumbprint: bytes | None = None
    if options.challenge is not None:
        nonce, thumbprint = binding.nonce_of_token(token, options.challenge)
    else:
        nonce = Nonce.from_hex(options.nonce)
    jwks: bytes | str | None = None
    jwks_url: str | None = None
    kind = TokenKind(options.token_type) if options.token_type is not None else None
    service = _service(options)
    if service:
        from nvattest.collateral.nras import JWKS_PATH

        jwks_url = service + JWKS_PATH
        jwks = _fetch(jwks_url, MAXIMUM_JWKS, options, service)
        # What the service says of its own anchors is not what NVIDIA's service would vouch for.
        kind = TokenKind.NRAS if found is TokenKind.DETACHED_EAT and kind in (None, found) else kind
    elif options.jwks.startswith("https://"):
        jwks_url = options.jwks
        jwks = _fetch(jwks_url, MAXIMUM_JWKS, options, options.nras_url)
    elif "://" in options.jwks:
        raise InputError(f"a JWKS is fetched over https only, not from {options.jwks[:80]!r}", code="jwks-url")
    elif options.jwks:
        jwks = file_text(read_bounded(options.jwks, MAXIMUM_JWKS))
    at = options.at or datetime.now(timezone.utc)
    verified = verify_token(
        token,
        issuer=options.issuer or service or options.nras_url.rstrip("/") or _usual_issuer(token),
        nonce=nonce,
        at=at,
        jwks=jwks,
        jwks_url=jwks_url,
        key=read_bounded(options.key, MAXIMUM_PEM) if options.key is not None else None,
        x5c_roots=read_bounded(options.x5c_anchors, 64 * 1024) if options.x5c_anchors is not None else None,
        leeway=timedelta(seconds=max(min(options.clock_skew_leeway_seconds, 2**31), -1)),
        expected_devices=options.expected_devices,
        expected_gpus=options.expected_gpus,
        expected_switches=options.expected_switches,
        kind=kind,
        accept_simulated=options.accept_simulated,
        refuse_weakened=options.refuse_weakened,
    )
    if service and jwks is not None:
        from nvattest._documents import load_json
        from nvattest.collateral.nras import check_own_chains, key_ids

        check_own_chains(load_json(jwks, source="JWKS", maximum=MAXIMUM_JWKS), key_ids(token), at)
    if thumbprint is not None and verified.key.thumbprint_bytes != thumbprint:
        raise TokenError("the key that signed the token is not the one that its header names", code="binding-key")
    return verified, at


def _usual_issuer(token: object) -> str | None:
    """Our own issuer where none is expected by name; NVAT's EARs name none, and the key alone says whose they are."""
    from nvattest.token.provenance import DEFAULT_ISSUER
    from nvattest.token.verify import unverified

    return DEFAULT_ISSUER if "iss" in unverified(token).payload else None


def _service(options: argparse.Namespace) -> str:
    """The service whose keys are to be fetched, as its tokens name it, or nothing."""
    if options.jwks or options.key is not None or options.x5c_anchors is not None:
        return ""
    # The variable is also there for attest: it counts where nothing on the command line says whose token this is.
    url = options.nras_url or ("" if options.issuer else from_environment("NVAT_NRAS_BASE_URL", ""))
    if not url:
        return ""
    from nvattest.collateral.nras import service_url

    return service_url(url)


def _read_token(path: str) -> bytes | str:
    from nvattest.collateral.folders import read_bounded
    from nvattest.token.jws import MAXIMUM_TOKEN

    # One byte more than is allowed, so that what is too large is told from what just fits.
    maximum = MAXIMUM_TOKEN + 1
    token = read_bounded(path, maximum) if path not in ("-", "") else sys.stdin.buffer.read(maximum)
    if not token.strip():
        raise InputError("there is no token", code="file", hint="name a file with --token-file, or give it on stdin")
    return file_text(token)


def _fetch(url: str, maximum: int, options: argparse.Namespace, key_host: str) -> bytes:
    """The JWKS at a URL: TLS verified, no redirects, a bounded answer within 30 s; only the service sees its key."""
    from nvattest._waiting import Deadline
    from nvattest.cli.network import http_settings
    from nvattest.collateral.http import HttpClient, Service

    wrong = ResultCode.VERIFIER_JWKS_ERROR
    service = Service(name="JWKS", unreachable=wrong, forbidden=wrong, missing=wrong, failed=wrong, invalid=wrong)
    with HttpClient(http_settings(options, *filter(None, [key_host]))) as client:
        return client.fetch(service, url, deadline=Deadline(30), maximum=maximum, accept="application/json")


def _policy_agrees(path: str, verified: VerifiedToken) -> bool:
    """What the relying party's policy says of the claims array, or of the whole EAR as NVIDIA has it."""
    from nvattest.collateral.folders import read_bounded
    from nvattest.policy.isolation import evaluate_bounded, evaluate_ear_bounded
    from nvattest.policy.relying_party import MAXIMUM, load_policy
    from nvattest.token.verified import TokenKind

    policy = load_policy(read_bounded(path, MAXIMUM), name=os.path.basename(path))
    if verified.kind is TokenKind.EAR:
        decision = evaluate_ear_bounded(policy, verified.payload)
    else:
        decision = evaluate_bounded(policy, list(verified.claims), verified.payload)
    for reason in decision.reasons:
        say(f"policy: {clean(reason, 300)}", error=True)
    return decision.matched is True


def _report(
    verified: VerifiedToken,
    check: BindingCheck | None,
    options: argparse.Namespace,
    code: ResultCode,
    status: int,
    *,
    at: datetime,
) -> int:
    from nvattest.token.verified import TokenKind

    if options.format == "json":
        from nvattest._documents import dump_json

        said: dict[str, object] = (
            {"ear": verified.payload} if verified.kind is TokenKind.EAR else {"claims": list(verified.claims)}
        )
        if check is not None:
            said["binding"] = binding.binding_to_json(check)
        if verified.refusals:
            said["refusals"] = [refusal.to_json() for refusal in verified.refusals]
        print(
            dump_json(
                {"result_code": int(code), "result_message": code.message, **said, "token": _summary(verified, at)},
            )
        )
        return status
    lines = [
        f"{verified.kind.value} of {clean(verified.issuer, 256) or 'an issuer without a name'}, {_span(verified)}",
        f"checked at {format_time(at)}",
        f"signed by {verified.key.thumbprint}",
        f"key: {verified.key_source}{_service_of(verified)}",
    ]
    if (roots := tls_roots(options, verified.key_url)) is not None:
        lines.append(f"TLS roots: {roots}")
    if verified.wrapper is not None:
        lines.append(f"taken out of {verified.wrapper} of a Python SDK's token, whose own signature proves nothing")
    if verified.anchors is not None:
        marked = "   *** SIMULATED: this proves nothing ***" * verified.simulated
        lines.append(f"trust anchors: {clean(verified.anchors, _WIDTH)}{marked}")
    if verified.at is not None:
        lines.append(f"judged at {verified.at}")
    if verified.weakened:
        lines.append(f"weakened: {', '.join(clean(name, _WIDTH) for name in verified.weakened)}")
    for label, claims in zip(verified.labels, verified.claims, strict=True):
        words = [f"{name} {clean(str(claims[name]), _WIDTH)}" for name in _SHOWN if name in claims]
        status_word = verified.statuses.get(label, "")
        lines.append("  ".join(("", label, *([status_word] if status_word else []), *words)))
    for label, word in verified.statuses.items():
        if label not in verified.labels:
            lines.append(f"  {clean(label, _WIDTH)}  {word}")
    lines += [f"  {refusal}" for refusal in verified.refusals]
    marked = " (simulated)" * verified.simulated
    verdict = {GOOD: "TRUSTED", POLICY_MISMATCH: "REFUSED BY THE POLICY"}.get(status, "NOT TRUSTED")
    lines.append(f"Result: {verdict}{marked}, code {int(code)} ({code.message})")
    say(joined(lines))
    return status


def _service_of(verified: VerifiedToken) -> str:
    from nvattest.token.verified import NVIDIA_ISSUER

    if verified.of_nvidia:
        return "; NVIDIA's own service"
    given = verified.issuer == NVIDIA_ISSUER and verified.key_url is None
    return "; that it is of NVIDIA's service is the caller's word" if given else ""


def _span(verified: VerifiedToken) -> str:
    return f"issued {format_time(verified.issued)}, good until {format_time(verified.expires)}"


def _summary(verified: VerifiedToken, at: datetime) -> dict[str, object]:
    digest = verified.evidence_digest
    return {
        "kind": verified.kind.value,
        "nvidia": verified.of_nvidia,
        "key_url": verified.key_url,
        "key_source": verified.key_source,
        "overall": verified.overall,
        "issuer": verified.issuer,
        "issued": format_time(verified.issued),
        "expires": format_time(verified.expires),
        "at": times(verified.at),
        "checked_at": format_time(at),
        "labels": list(verified.labels),
        "key_thumbprint": verified.key.thumbprint,
        "simulated": verified.simulated,
        "anchors": verified.anchors,
        "weakened": list(verified.weakened),
        "evidence_digest": digest.hex() if digest is not None else None,
        "statuses": dict(verified.statuses),
        "wrapper": verified.wrapper,
    }
