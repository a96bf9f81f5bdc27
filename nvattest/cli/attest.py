"""``nvattest attest``: evidence and collateral from where the options say, one verification, one result.

In order: the policies and the key (a mistake there costs no device a report), the nonce, the evidence, the CPU's quote
over it where one is wanted, the collateral, the verification, the relying party's policy, the token, the output.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from nvattest._documents import dump_json
from nvattest._registry import NRAS_URL
from nvattest.cli import collect, sources
from nvattest.cli.arguments import (
    ArgumentError,
    add_options,
    choice,
    fault_names,
    flag,
    given,
    ignored,
    input_file,
    option,
    output_file,
    platform_names,
    read,
    suggested,
    warns,
)
from nvattest.cli.output import print_json, report_error, say, say_how_read, voucher, write_file
from nvattest.cli.sources import Demands
from nvattest.errors import InputError, NvattestError, PolicyError, ResultCode
from nvattest.model import Nonce

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import EvidencePolicy, Source
    from nvattest.appraisal.results import Appraisal
    from nvattest.evidence import Evidence
    from nvattest.policy.relying_party import PolicyDecision, RelyingPartyPolicy
    from nvattest.testing import SimulatedGuest
    from nvattest.token.jose import SigningKey
    from nvattest.token.verified import Refusal

# The codes at which NVIDIA's program prints claims: the devices were judged, whatever the judgement.
_JUDGED = (ResultCode.OK, ResultCode.RP_POLICY_MISMATCH, ResultCode.OVERALL_RESULT_FALSE)
# Options that name devices, collateral, anchors or a service; --simulate brings its own.
_SIMULATED = (
    "gpu_evidence_source", "gpu_evidence_file", "gpu_architecture", "nvswitch_evidence_source",
    "nvswitch_evidence_file", "bundle", "rim_store", "rim_dir", "rim_url", "ocsp_url", "trust_anchors", "nras_url",
)  # fmt: skip
# Options of our own that the local verifier and its token need; a service signs its own token.
_LOCAL = (
    "bundle", "trust_anchors", "token_format", "signing_key", "issuer", "jwks_out", "token_lifetime",
    "challenge", "bind_tee", "extend_rtmr",
)  # fmt: skip
# Options about what is gathered for the local verifier.
_COLLATERAL = ("rim_store", "rim_dir", "rim_url", "ocsp_url", "ocsp_cert_id_hash", "cache_dir", "no_cache")
_LIVE = (
    "allow_devtools", "driver_timeout", "timeout", "ocsp_cert_id_hash", "service_key", "tls_ca_cert", "tls_ca_path",
)  # fmt: skip


class RemoteRequest(NamedTuple):
    """Another verifier than this program: NVIDIA's service, and which of its answers are accepted."""

    nras_url: str = option(
        "URL", "NVIDIA's remote attestation service; every output names another one", default=NRAS_URL,
        variable="NVAT_NRAS_BASE_URL",
    )  # fmt: skip
    refuse_weakened: bool = flag("refuse the answer of another remote service than NVIDIA's own")
    accept_simulated: bool = flag("for tests: accept a remote service's answer about simulated devices")


class TokenRequest(NamedTuple):
    """Which token is issued, signed by whom, and where it goes."""

    claims_version: str
    token_format: str = option(
        "FORMAT", "detached-eat (the default; NVIDIA's shape) or ear (EAT attestation result)",
        choice("detached-eat", "ear"), "detached-eat",
    )  # fmt: skip
    token_out: str = option("FILE", "write the token here, whole or not at all, for its owner only", output_file, "")
    signing_key: str | None = option(
        "PEM", "sign with this P-384 key; without it a key is made for this run and forgotten", input_file
    )
    issuer: str = option("TEXT", "iss of the token (NVATTEST-LOCAL-VERIFIER)", default="")
    jwks_out: str = option("FILE", "write the public half of the key here, as JWKS", output_file, "")
    token_lifetime: int = option("SECONDS", "how long the token is good (3600)", int, 3600)


class BindingRequest(NamedTuple):
    """What binds a token to the CPU: the challenge, and the file for a quote over challenge, key and evidence."""

    challenge: bytes | None = option(
        "HEX", "the relying party's challenge; the devices' nonce is derived from it and from the token's key",
        sources.challenge,
    )  # fmt: skip
    bind_tee: str = option(
        "FILE", "write a quote of the CPU here that covers the challenge, the token's key and all raw evidence",
        output_file, "",
    )  # fmt: skip
    tsm_root: str = option("DIR", "where the kernel gives quotes (configfs-tsm)", default="")
    extend_rtmr: str | None = option(
        "N", "extend this runtime register with the evidence digest first, where the kernel offers registers",
        choice("2", "3"),
    )  # fmt: skip


class Request(NamedTuple):
    """What is attested, with what, and what comes out. ``remote`` and ``simulate`` are None where not asked for."""

    evidence: collect.EvidenceSource
    collateral: sources.CollateralSource
    demands: Demands
    token: TokenRequest
    binding: BindingRequest
    remote: RemoteRequest | None
    as_json: bool
    debug: bool
    simulate: str | None
    verbose: bool
    simulate_guest: str = option(
        "GUEST", "with --simulate and --bind-tee: the guest that gives the quote, such as snp-genoa (tdx)", None, "tdx"
    )
    fault: list[str] = option(
        "TARGET:LIE", "with --simulate: gpu0:measurement=9", suggested(fault_names), [], many=True
    )
    explain: bool = flag("explain the result, as nvattest explain does")


class Result(NamedTuple):
    """What there is to print.

    Where a remote service verified, ``appraisal`` is None, ``verified_by`` names it, and ``refusals`` are its reasons.
    """

    code: ResultCode
    claims: list[dict[str, object]]
    token: object = None
    appraisal: Appraisal | None = None
    decision: PolicyDecision | None = None
    verified_by: dict[str, object] | None = None
    refusals: tuple[Refusal, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    collect.add_evidence_options(parser)
    sources.add_collateral_options(parser)
    group = parser.add_argument_group("verifier")
    group.add_argument(
        "--verifier", type=choice("local", "remote"), default="local", metavar="WHERE",
        help="local (the default), or remote: NVIDIA's attestation service verifies, its signed answer is checked here",
    )  # fmt: skip
    add_options(group, RemoteRequest)
    group = sources.add_judgement_options(parser)
    add_options(group, Demands)
    group.add_argument(
        "-v", "--verbose", action="store_true",
        help="show every check of every device; otherwise trusted devices are folded, and a failure shows its causes",
    )  # fmt: skip
    for name in ("signatures", "cert-chain"):
        names = (f"--verify-rim-{name}", f"--no-verify-rim-{name}")
        group.add_argument(*names, action=_AlwaysVerified, nargs=0, help=argparse.SUPPRESS)
    group.add_argument(
        "--simulate", type=suggested(platform_names), nargs="?", const="hopper-8-ppcie", metavar="PLATFORM",
        help="attest a simulated platform (see nvattest simulate --list); proves nothing but that the program works",
    )  # fmt: skip
    add_options(group, Request)
    add_options(parser.add_argument_group("token"), TokenRequest)
    add_options(parser.add_argument_group("binding to the CPU TEE"), BindingRequest)


class _AlwaysVerified(argparse.Action):
    """NVIDIA's switches for RIM verification. They are accepted, and RIMs are verified all the same."""

    def __call__(self, _parser: object, _namespace: object, _values: object, option: str | None = None) -> None:
        if option is not None and option.startswith("--no-"):
            say(f"warning: {option} has no effect: RIMs are always verified", error=True)


def run(options: argparse.Namespace) -> int:
    """Verify and print; the exit status is the result code modulo 256."""
    request = _request(options)
    try:
        if request.evidence.corelib:
            raise InputError(
                "corelib evidence can be collected, not attested", hint="use --gpu-evidence-source nvml or file"
            )
        result = _local(request) if request.remote is None else _remote(request, request.remote)
    except NvattestError as error:
        members: dict[str, object] = {"claims": {}, "detached_eat": {}, "appraisal": None}
        report_error(error, "NOT TRUSTED", "attest", members, as_json=request.as_json)
        return error.result_code.exit_status or ResultCode.UNKNOWN.exit_status
    if request.as_json:
        _print_json(result)
    else:
        _print_text(result, request)
    return result.code.exit_status


def _request(options: argparse.Namespace) -> Request:
    """The request, without options that would have no effect: no result is about something else than was meant."""
    remote = options.verifier == "remote"
    if remote:
        _refuse(
            given(options, "offline", *_LOCAL),
            "{}: cannot go with --verifier remote: the service is asked, verifies and signs by itself",
        )
    else:
        _refuse(given(options, "refuse_weakened"), "{} is about the answer of a service: it needs --verifier remote")
    if options.simulate is None:
        _refuse(options.fault, "--fault: {} needs --simulate: no real device can be given it")
    else:
        other = given(options, *_SIMULATED)
        if remote:
            other.append("--verifier remote")
        if options.device != "all":
            other += [f"{name} {options.device}" for name in given(options, "device")]
        _refuse(
            other,
            "{}: cannot go with --simulate, which brings all devices, collateral and anchors of its platform; "
            "for live services use nvattest simulate -- nvattest attest",
        )
    if not options.bind_tee or options.tsm_root:
        _refuse(
            [text for text in options.fault if text.startswith("guest:")],
            "--fault: {} is seen in the quote of a simulated guest: it needs --bind-tee and no --tsm-root",
        )
    if options.no_cache:
        _refuse(given(options, "cached_revocation"), "{}: cannot go with --no-cache, which uses none")
    _warn_of_ignored(options, remote=remote)
    return read(
        Request,
        options,
        evidence=collect.evidence_source(options),
        collateral=sources.collateral_source(options),
        demands=read(Demands, options),
        token=read(TokenRequest, options),
        binding=read(BindingRequest, options),
        remote=read(RemoteRequest, options) if remote else None,
        as_json=options.format == "json",
        debug=options.log_level in ("debug", "trace"),
    )


def _refuse(found: Sequence[str], message: str) -> None:
    if found:
        raise ArgumentError(message.format(found[0]))


def _warn_of_ignored(options: argparse.Namespace, *, remote: bool) -> None:
    """Warn of options that have no effect beside the others."""
    as_json, goes_out = options.format == "json", options.token_out or options.signing_key
    token = as_json or goes_out or options.jwks_out or options.bind_tee
    for unused, names, why in (
        (remote, _COLLATERAL, "the service gathers what it verifies with"),
        (remote, ["cached_revocation"], "the service asks for revocation"),
        (not remote, ["nras_url", "accept_simulated"], "no remote service verifies; --verifier remote asks one"),
        (
            not remote and options.relying_party_policy is None,
            ["cached_revocation"],
            "it is about a --relying-party-policy",
        ),
        (
            not remote and not token,
            ["token_format", "issuer", "token_lifetime"],
            "no token is made; --token-out writes one",
        ),
        (not options.bind_tee and options.extend_rtmr is None, ["tsm_root"], "no quote is made; --bind-tee makes one"),
        (options.simulate is not None, _LIVE, "--simulate asks no driver and no service"),
        (as_json, ["explain", "verbose"], "the JSON has every check; nvattest explain reads it"),
    ):
        if unused:
            ignored(options, names, why)
    if options.jwks_out and not goes_out and not as_json and warns(options):
        say("warning: --jwks-out: no token goes out, and its key is forgotten; name --token-out", error=True)


# --- verified here ----------------------------------------------------------------------------------------------------


def _local(request: Request) -> Result:
    policy = sources.evidence_policy(request.demands.policy)
    relying_party = sources.relying_party_policy(request.demands)
    token = request.token
    wanted = request.as_json or token.token_out or token.jwks_out or token.signing_key or request.binding.bind_tee
    key = signing_key(token.signing_key) if wanted else None
    binding = requested_binding(request.binding, request.evidence.nonce, key)
    appraisal = (_simulate if request.simulate is not None else _appraise)(request, policy, binding)
    from nvattest.token.claims import claims_of

    claims = claims_of(appraisal, version=request.demands.claims_version)
    code, decision, said = appraisal.result_code, None, None
    if relying_party is not None:
        decision, code = _decide(relying_party, appraisal, claims, request)
        said = relying_party.provenance(decision, overrides=request.demands.policy_overrides_appraisal)
    signed = make_token(appraisal, token, key, said) if key is not None else None
    return Result(code, claims, signed, appraisal, decision)


def _appraise(request: Request, policy: EvidencePolicy | None, binding: Binding | None) -> Appraisal:
    # Imported here and not above: a service that verifies, a mistake in the options and --help need no verifier.
    from nvattest.appraisal.verifier import Verifier
    from nvattest.session import verify

    nonce: Nonce | None
    if binding is None:
        nonce, evidence = collect.nonce_and_evidence(request.evidence)
    else:
        nonce, evidence = binding.nonce, collect.collect(request.evidence, binding.nonce)
        binding.take_quote(evidence)
    demands = request.demands
    verifier = Verifier(anchors=sources.trust_anchors(demands.trust_anchors), policy=policy)
    devices = verifier.read(evidence)
    collateral = sources.fetch_collateral(request.collateral, devices, verifier, demands)
    # Only now is the clock read: what the network has just answered is not from the future.
    return verify(devices, collateral=collateral, nonce=nonce, at=demands.at, verifier=verifier)


def _simulate(request: Request, policy: EvidencePolicy | None, binding: Binding | None) -> Appraisal:
    """The one-word demonstration: simulated devices and collateral in this process; no GPU, no network, no compiler."""
    from datetime import datetime, timezone

    from nvattest.session import verify
    from nvattest.testing import Platform, SimulatedGuest, parse_fault

    nonce = (binding.nonce if binding is not None else None) or collect.requester_nonce(request.evidence)
    nonce = nonce or Nonce(os.urandom(32))
    faults = [parse_fault(text) for text in request.fault]
    platform = Platform.build(request.simulate or "", lies=[lie for lie in faults if lie.target != "guest"])
    guest = None
    if request.binding.bind_tee and not request.binding.tsm_root:
        # The token is issued now, and who verifies it judges the quote at the same time.
        lies = [lie for lie in faults if lie.target == "guest"]
        guest = SimulatedGuest(request.simulate_guest, clock=datetime.now(timezone.utc), lies=lies)
    for lie in platform.lies:
        # A lie of the responder would show in no check.
        if lie.name in ("ocsp-nonce", "ocsp-no-nonce"):
            raise InputError(
                f"{lie} needs a responder that is asked live, and --simulate has only its recorded answers",
                code="fault-live",
                hint=f"nvattest simulate --platform {platform.name} --fault {lie} -- nvattest attest --no-cache",
            )
    evidence = platform.collect(nonce)
    if binding is not None:
        binding.take_quote(evidence, guest=guest)
    return verify(
        evidence,
        collateral=platform.collateral(),
        nonce=nonce,
        at=request.demands.at or platform.time,
        policy=policy,
        anchors=platform.trust_anchors(),
    )


def _decide(
    policy: RelyingPartyPolicy, appraisal: Appraisal, claims: list[dict[str, object]], request: Request
) -> tuple[PolicyDecision, ResultCode]:
    from nvattest.policy.isolation import evaluate_bounded
    from nvattest.policy.relying_party import as_if_fresh, combine, kept_answers
    from nvattest.token.claims import DEFAULT_ISSUER, SUBJECT

    # What the overall token says: the subject of the overall section of JSON policies.
    overall = {
        "iss": request.token.issuer or DEFAULT_ISSUER,
        "sub": SUBJECT,
        "x-nvidia-ver": request.token.claims_version,
        "x-nvidia-overall-att-result": appraisal.trusted,
        "eat_nonce": appraisal.nonce.hex() if appraisal.nonce is not None else None,
    }
    decision = evaluate_bounded(policy, claims, overall)
    if not decision.matched and (kept := kept_answers(appraisal)):
        # Only an explanation: an engine that fails here changes no decision.
        with suppress(PolicyError):
            if evaluate_bounded(policy, as_if_fresh(claims), overall).matched:
                decision = replace(decision, reasons=(*decision.reasons, _only_kept(kept, request)))
    return decision, combine(appraisal, decision, overrides=request.demands.policy_overrides_appraisal)[1]


def _only_kept(kept: frozenset[Source], request: Request) -> str:
    """What to say of a policy that would match if it did not demand answers made for this request."""
    causes = {
        "--bundle": request.collateral.bundles,
        "--offline": request.collateral.services.offline,
        "--cached-revocation": request.demands.cached_revocation,
    }
    cause = next((name for name, value in causes.items() if value), "what gives them")
    advice = f"leave out {cause}, so that they are asked for"
    if request.simulate is not None:
        advice = f"nvattest simulate --platform {request.simulate} -- nvattest attest, which asks for them"
    return (
        "it would match but for x-nvidia-cert-ocsp-nonce-matches: revocation answers of the "
        f"{' and the '.join(sorted(source.value for source in kept))} were not made for this request; next: {advice}"
    )


# --- the token, and its binding to the CPU ----------------------------------------------------------------------------


def signing_key(path: str | None) -> SigningKey:
    """The key of ``--signing-key``, or a new one."""
    from nvattest.token.jose import MAXIMUM_PEM, SigningKey

    if path is None:
        return SigningKey.generate()
    return sources.read_file("--signing-key", path, MAXIMUM_PEM, SigningKey.from_pem, "private-key")


def make_token(
    appraisal: Appraisal, request: TokenRequest, key: SigningKey, relying_party: Mapping[str, object] | None = None
) -> list[object] | str:
    """Sign the appraisal, write the files that the request names, and return the token.

    The result is the detached EAT as a JSON value, or the EAR as a compact JWT. ``relying_party`` goes into the token
    (see ``provenance``).
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
    """Write ``--token-out``: a compact JWT as it is, a detached EAT as JSON."""
    write_file(path, (token if isinstance(token, str) else json.dumps(token)) + "\n", mode=0o600)


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
        from nvattest.token.binding import evidence_digest_of, report_data

        digest = evidence_digest_of([(item.report, item.certificate_chain) for item in evidence])
        if self.request.extend_rtmr is not None:
            tsm.extend_register(digest, register=int(self.request.extend_rtmr))
        covered = report_data(self.challenge, self.thumbprint, digest)
        root = self.request.tsm_root or tsm.DEFAULT_ROOT
        quote = tsm.take_quote(covered, root=root) if guest is None else guest.take_quote(covered)
        write_file(self.request.bind_tee, dump_json(dump_quote(quote)) + "\n", mode=0o600)


def requested_binding(request: BindingRequest, nonce: str, key: SigningKey | None) -> Binding | None:
    """The binding that is asked for, or None."""
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
    from nvattest.token.binding import derive_device_nonce

    thumbprint = key.public.thumbprint_bytes
    return Binding(request, request.challenge, thumbprint, derive_device_nonce(request.challenge, thumbprint))


# --- verified by a service --------------------------------------------------------------------------------------------


def _remote(request: Request, remote: RemoteRequest) -> Result:
    """A service verifies; its signed answer is verified here, and the relying party's policy sees its claims."""
    from nvattest.collateral.nras import NrasClient
    from nvattest.token.verified import result_code

    demands = request.demands
    if demands.policy is not None:
        raise InputError(
            "--policy is what the local verifier demands; NVIDIA's service has a policy of its own", code="policy",
            hint="say what you demand of the service's claims with --relying-party-policy",
        )  # fmt: skip
    if demands.policy_overrides_appraisal:
        # Their token cannot say so, and their false result does not say which check failed.
        raise InputError(
            "--policy-overrides-appraisal is for the local verifier", code="policy", hint="use --verifier local"
        )
    relying_party = sources.relying_party_policy(demands)
    nonce, evidence = collect.nonce_and_evidence(request.evidence)
    if nonce is None:
        raise InputError(
            "a recording needs its nonce", code="nonce", result_code=ResultCode.GPU_EVIDENCE_NONCE_MISMATCH,
            hint="give the nonce of the recording (--nonce)",
        )  # fmt: skip
    say_how_read(evidence)
    services = request.collateral.services
    with NrasClient(
        remote.nras_url,
        http=services.access.http(remote.nras_url),
        timeout=services.timeout,
        claims_version=demands.claims_version,
    ) as client:
        answers = client.attest(
            evidence,
            nonce=nonce,
            at=demands.at.device if demands.at is not None else None,
            accept_simulated=remote.accept_simulated,
            refuse_weakened=remote.refuse_weakened,
        )
    claims = [dict(item) for answer in answers for item in answer.verified.claims]
    overall = bool(answers) and all(answer.verified.overall for answer in answers)
    refusals = tuple(refusal for answer in answers for refusal in answer.verified.refusals)
    code = result_code(overall, refusals)
    decision = None
    if relying_party is not None and overall:
        from nvattest.policy.isolation import evaluate_bounded

        # Rules for the overall token hold for each of them: there is one per architecture.
        for answer in answers:
            decision = evaluate_bounded(relying_party, claims, answer.verified.payload)
            if decision.matched is not True:
                code = ResultCode.RP_POLICY_MISMATCH
                break
    tokens = [answer.token for answer in answers]
    token = tokens[0] if len(tokens) == 1 else tokens
    if request.token.token_out:
        write_token(request.token.token_out, token)
    verified_by = {
        **voucher(answers[0].verified),
        "simulated": any(answer.verified.simulated for answer in answers),
        "tls_roots": services.access.roots(answers[0].verified.key_url),
    }
    return Result(code, claims, token, decision=decision, verified_by=verified_by, refusals=refusals)


def _print_json(result: Result) -> None:
    from nvattest.appraisal.results import appraisal_to_json

    judged = result.code in _JUDGED
    document: dict[str, object] = {
        "claims": result.claims if judged else {},
        "detached_eat": result.token if judged else {},
    }
    if (decision := result.decision) is not None:
        document["relying_party_policy"] = {"matched": decision.matched, "reasons": list(decision.reasons)}
    if result.verified_by is not None:
        document["verified_by"] = result.verified_by
    if result.refusals:
        document["refusals"] = [refusal.to_json() for refusal in result.refusals]
    document["appraisal"] = appraisal_to_json(result.appraisal) if result.appraisal is not None else None
    print_json("attest", document, code=result.code)


def _print_text(result: Result, request: Request) -> None:
    from nvattest.cli.output import terminal_for
    from nvattest.report.reading import view_of
    from nvattest.report.text import account, claims_account, decision_account, story

    if result.appraisal is None:
        say(claims_account(result.claims, result.code, result.verified_by or {}, result.refusals))
    else:
        view, terminal = view_of(result.appraisal), terminal_for()
        if request.explain:
            text = story(view, terminal, everything=request.verbose, saved=False)
        else:
            text = account(view, terminal, verbose=request.verbose or request.debug)
        say(text, colour=terminal.color)
    if result.decision is not None:
        say(decision_account(result.decision, result.code))
