"""``nvattest attest``: evidence and collateral from where the options say, one verification, one result.

In order: the policies and the key (a mistake there costs no device a report), the nonce, the evidence, the CPU's quote
over it where one is wanted, the collateral, the verification, the relying party's policy, the token, the output.
"""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nvattest.cli import binding, network, sources, token_options
from nvattest.cli.arguments import VALIDATION, ArgumentError, choice, converted, existing_file
from nvattest.cli.output import say, say_how_read
from nvattest.errors import InputError, NvattestError, PolicyError, ResultCode
from nvattest.model import Nonce, VerificationTime

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Source
    from nvattest.appraisal.policy import EvidencePolicy
    from nvattest.appraisal.results import Appraisal
    from nvattest.evidence import Evidence
    from nvattest.policy.decision import PolicyDecision
    from nvattest.policy.relying_party import RelyingPartyPolicy
    from nvattest.token.keys import SigningKey
    from nvattest.token.verified import Refusal

# The codes at which NVIDIA's program prints claims: the devices were judged, whatever the judgement.
_JUDGED = (ResultCode.OK, ResultCode.RP_POLICY_MISMATCH, ResultCode.OVERALL_RESULT_FALSE)
_MAXIMUM_POLICY = 1024 * 1024
# Options that name devices, collateral, anchors or a service; --simulate brings its own.
_SIMULATED = (
    "gpu_evidence_source", "gpu_evidence_file", "gpu_architecture", "nvswitch_evidence_source",
    "nvswitch_evidence_file", "bundle", "rim_store", "rim_dir", "rim_url", "ocsp_url", "trust_anchors", "nras_url",
)  # fmt: skip
# Options of our own that the local verifier and its token need; a service gives its own token after its own look.
_LOCAL = (
    "bundle", "trust_anchors", "token_format", "signing_key", "issuer", "jwks_out", "token_lifetime",
    "challenge", "bind_tee", "extend_rtmr",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Result:
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
    sources.add_evidence_options(parser)
    sources.add_collateral_options(parser)
    network.add_remote_options(parser)
    _add_verification_options(parser)
    token_options.add_token_options(parser)
    binding.add_attest_options(parser)


def _add_verification_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("verification")
    group.add_argument("--policy", type=existing_file, metavar="FILE", help="evidence policy, TOML or JSON")
    group.add_argument(
        "--relying-party-policy", type=existing_file, metavar="FILE", help="what you demand of the claims: Rego or JSON"
    )
    group.add_argument(
        "--cached-revocation", action="store_true",
        help="with a relying party's policy too, take revocation answers from the cache; by default they are asked for "
        "anew, since policies may demand x-nvidia-cert-ocsp-nonce-matches",
    )  # fmt: skip
    group.add_argument(
        "--policy-overrides-appraisal", action="store_true",
        help="the relying party's policy alone decides on values, validity and revocation; the token says so",
    )  # fmt: skip
    group.add_argument(
        "--at", type=converted(VerificationTime.parse), metavar="TIME",
        help="judge validity at this time, or device=TIME,rim=TIME; now by default",
    )  # fmt: skip
    group.add_argument(
        "--trust-anchors", type=existing_file, default=os.environ.get("NVATTEST_TRUST_ANCHORS") or None, metavar="PEM",
        help="trust these roots instead of NVIDIA's; every output says so (NVATTEST_TRUST_ANCHORS)",
    )  # fmt: skip
    group.add_argument(
        "--claims-version", type=choice("2.0", "3.0", "4.0"), default="4.0", metavar="VERSION",
        help="version of the GPU claims: 2.0, 3.0 or 4.0 (the default); switches have 3.0 beside 4.0",
    )  # fmt: skip
    group.add_argument("--explain", action="store_true", help="explain the result, as nvattest explain does")
    group.add_argument(
        "-v", "--verbose", action="store_true",
        help="show every check of every device; of several devices the trusted ones are folded otherwise",
    )  # fmt: skip
    for name in ("signatures", "cert-chain"):
        group.add_argument(
            f"--verify-rim-{name}", f"--no-verify-rim-{name}", action=_AlwaysVerified, nargs=0,
            help=argparse.SUPPRESS,
        )  # fmt: skip
    group.add_argument(
        "--simulate", nargs="?", const="hopper-8-ppcie", metavar="PLATFORM",
        help="attest a simulated platform (see nvattest simulate --list); proves nothing but that the program works",
    )  # fmt: skip
    group.add_argument(
        "--fault", action="append", default=[], metavar="TARGET:LIE", help="with --simulate: gpu0:measurement=9"
    )


class _AlwaysVerified(argparse.Action):
    """NVIDIA's switches for RIM verification. They are accepted, and RIMs are verified all the same."""

    def __call__(self, _parser: object, _namespace: object, _values: object, option: str | None = None) -> None:
        if option is not None and option.startswith("--no-"):
            say(f"warning: {option} has no effect: RIMs are always verified", error=True)


def run(options: argparse.Namespace) -> int:
    """Verify and print; the exit status is the result code modulo 256."""
    _check_combination(options)
    if options.simulate is None:
        sources.check_evidence_options(options)
    try:
        if options.gpu_evidence_source == "corelib" and options.device in ("gpu", "all"):
            raise InputError(
                "corelib evidence can be collected, not attested", hint="use --gpu-evidence-source nvml or file"
            )
        result = _remote(options) if options.verifier == "remote" else _local(options)
    except NvattestError as error:
        from nvattest.cli.output import report_error

        members: dict[str, object] = {"claims": {}, "detached_eat": {}, "appraisal": None}
        report_error(error, "NOT TRUSTED", members, as_json=options.format == "json")
        return error.result_code.exit_status or ResultCode.UNKNOWN.exit_status
    _print(result, options)
    return result.code.exit_status


def _check_combination(options: argparse.Namespace) -> None:
    """Refuse options that would have no effect, so that no result is about something else than the caller believes.

    Raises:
        ArgumentError: an option of the local verifier with the remote one, a fault without a simulation, or a
            simulation with devices or collateral of another origin.
    """
    if options.refuse_weakened and options.verifier != "remote":
        raise ArgumentError(
            "--refuse-weakened is about the answer of a service: it needs --verifier remote", VALIDATION
        )
    given: set[str] = getattr(options, "_given", set())
    if options.verifier == "remote":
        local = ["--offline"] * options.offline
        local += [f"--{name.replace('_', '-')}" for name in _LOCAL if name in given]
        if local:
            raise ArgumentError(
                f"{local[0]}: cannot go with --verifier remote: the service is asked, verifies and signs by itself",
                VALIDATION,
            )
    if options.simulate is None:
        if options.fault:
            raise ArgumentError(
                f"--fault: {options.fault[0]} needs --simulate: no real device can be given it", VALIDATION
            )
        return
    other = [f"--{name.replace('_', '-')}" for name in _SIMULATED if name in given]
    other += ["--verifier remote"] * (options.verifier == "remote")
    other += [f"--device {options.device}"] * ("device" in given and options.device != "all")
    if other:
        raise ArgumentError(
            f"{other[0]}: cannot go with --simulate, which brings all devices, collateral and anchors of its platform; "
            "for live services use nvattest simulate -- nvattest attest",
            VALIDATION,
        )


def _local(options: argparse.Namespace) -> Result:
    policy = _evidence_policy(options)
    relying_party = _relying_party_policy(options)
    key = token_options.signing_key(options) if _wants_token(options) else None
    appraisal = _appraise(options, policy, key)
    code = appraisal.result_code
    decision = None
    if relying_party is not None:
        decision, code = _decide(relying_party, appraisal, options)
    result = Result(code=code, claims=_claims(appraisal, options), appraisal=appraisal, decision=decision)
    if key is not None:
        said = None
        if relying_party is not None and decision is not None:
            said = relying_party.provenance(decision, overrides=options.policy_overrides_appraisal)
        result.token = token_options.make_token(appraisal, options, key=key, relying_party=said)
    return result


def _wants_token(options: argparse.Namespace) -> bool:
    named = options.token_out or options.jwks_out or options.signing_key or options.bind_tee
    return bool(named) or options.format == "json"


def _evidence_policy(options: argparse.Namespace) -> EvidencePolicy | None:
    if options.policy is None:
        return None
    from nvattest.collateral.folders import read_bounded
    from nvattest.policy.evidence_policy import load_evidence_policy

    return load_evidence_policy(read_bounded(options.policy, _MAXIMUM_POLICY), source=options.policy)


def _relying_party_policy(options: argparse.Namespace) -> RelyingPartyPolicy | None:
    if options.relying_party_policy is None:
        if options.policy_overrides_appraisal:
            raise InputError("--policy-overrides-appraisal needs a --relying-party-policy", code="policy")
        return None
    from nvattest.collateral.folders import read_bounded
    from nvattest.policy.relying_party import load_policy

    path = options.relying_party_policy
    return load_policy(read_bounded(path, _MAXIMUM_POLICY), name=os.path.basename(path))


def _decide(
    policy: RelyingPartyPolicy, appraisal: Appraisal, options: argparse.Namespace
) -> tuple[PolicyDecision, ResultCode]:
    from nvattest.policy.decision import as_if_fresh, combine, kept_answers
    from nvattest.policy.isolation import evaluate_bounded

    overall = token_options.overall_claims(appraisal, options)
    claims = _claims(appraisal, options)
    decision = evaluate_bounded(policy, claims, overall)
    if not decision.matched and (kept := kept_answers(appraisal)):
        # Only an explanation: an engine that fails here changes no decision.
        with suppress(PolicyError):
            if evaluate_bounded(policy, as_if_fresh(claims), overall).matched:
                decision = replace(decision, reasons=(*decision.reasons, _only_kept(kept, options)))
    return decision, combine(appraisal, decision, overrides=options.policy_overrides_appraisal)[1]


def _only_kept(sources: frozenset[Source], options: argparse.Namespace) -> str:
    """What to say of a policy that would match if it did not demand answers made for this request."""
    named = [
        f"--{name.replace('_', '-')}" for name in ("bundle", "offline", "cached_revocation") if getattr(options, name)
    ]
    advice = (
        f"nvattest simulate --platform {options.simulate} -- nvattest attest, which asks for them"
        if options.simulate is not None
        else f"leave out {named[0] if named else 'what gives them'}, so that they are asked for"
    )
    return (
        "it would match but for x-nvidia-cert-ocsp-nonce-matches: revocation answers of the "
        f"{' and the '.join(sorted(source.value for source in sources))} were not made for this request; next: {advice}"
    )


def _claims(appraisal: Appraisal, options: argparse.Namespace) -> list[dict[str, object]]:
    from nvattest.token.claims import claims_of

    return claims_of(appraisal, version=options.claims_version)


def _appraise(options: argparse.Namespace, policy: EvidencePolicy | None, key: SigningKey | None) -> Appraisal:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.session import now

    if options.simulate is not None:
        return _simulate(options, policy, key)
    nonce, evidence = _collect(options, key)
    verifier = Verifier(anchors=sources.trust_anchors(options), policy=policy)
    collateral = sources.load_collateral(options, evidence, verifier=verifier)
    # Only now: what the network has just answered is not from the future.
    return verifier.appraise(evidence, nonce=nonce, collateral=collateral, at=options.at or now())


def _collect(options: argparse.Namespace, key: SigningKey | None) -> tuple[Nonce | None, tuple[Evidence, ...]]:
    bound = binding.requested(options, key)
    if bound is None:
        return sources.nonce_and_evidence(options)
    evidence = sources.load_evidence_of(options, bound.nonce)
    bound.take_quote(evidence, options)
    return bound.nonce, evidence


def _simulate(options: argparse.Namespace, policy: EvidencePolicy | None, key: SigningKey | None) -> Appraisal:
    """The one-word demonstration: simulated devices and collateral in this process; no GPU, no network, no compiler."""
    import json

    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import load_bundle
    from nvattest.testing.platform import Platform

    bound = binding.requested(options, key)
    if bound is not None:
        nonce = bound.nonce
    else:
        nonce = Nonce.from_hex(options.nonce) if options.nonce else Nonce(os.urandom(32))
    platform = Platform.build(options.simulate, lies=options.fault)
    for lie in platform.lies:
        if lie.name in ("ocsp-nonce", "ocsp-no-nonce"):  # a lie that nobody hears would look like one that nobody saw
            raise InputError(
                f"{lie} needs a responder that is asked live, and --simulate has only its recorded answers",
                code="fault-live",
                hint=f"nvattest simulate --platform {platform.name} --fault {lie} -- nvattest attest --no-cache",
            )
    verifier = Verifier(anchors=platform.trust_anchors(), policy=policy)
    evidence = platform.collect(nonce.value)
    if bound is not None:
        bound.take_quote(evidence, options)
    return verifier.appraise(
        evidence,
        nonce=nonce,
        collateral=load_bundle(json.dumps(platform.bundle()), origin="simulated"),
        at=options.at or platform.time,
    )


def _remote(options: argparse.Namespace) -> Result:
    """A service verifies; its signed answer is verified here, and the relying party's policy sees its claims."""
    from nvattest.cli.output import voucher

    if options.policy is not None:
        raise InputError(
            "--policy is what the local verifier demands; NVIDIA's service has a policy of its own", code="policy",
            hint="say what you demand of the service's claims with --relying-party-policy",
        )  # fmt: skip
    if options.policy_overrides_appraisal:
        # Their token cannot say so, and what lies behind their false result cannot be told apart here.
        raise InputError(
            "--policy-overrides-appraisal is for the local verifier", code="policy", hint="use --verifier local"
        )
    from nvattest.token.verified import result_code

    relying_party = _relying_party_policy(options)
    nonce, evidence = _collect(options, None)
    if nonce is None:
        raise InputError(
            "a recording needs its nonce", code="nonce", result_code=ResultCode.GPU_EVIDENCE_NONCE_MISMATCH,
            hint="give the nonce of the recording (--nonce)",
        )  # fmt: skip
    say_how_read(evidence)
    answers = network.attest_remotely(options, evidence, nonce)
    claims = [dict(item) for answer in answers for item in answer.verified.claims]
    overall = bool(answers) and all(answer.verified.overall for answer in answers)
    tokens = [answer.token for answer in answers]
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
    token = tokens[0] if len(tokens) == 1 else tokens
    if options.token_out:
        token_options.write_token(options.token_out, token)
    return Result(
        code=code,
        claims=claims,
        token=token,
        decision=decision,
        refusals=refusals,
        verified_by={
            **voucher(answers[0].verified),
            "simulated": any(answer.verified.simulated for answer in answers),
            "tls_roots": network.tls_roots(options, answers[0].verified.key_url),
        },
    )


def _print(result: Result, options: argparse.Namespace) -> None:
    if options.format == "json":
        from nvattest._documents import dump_json

        judged = result.code in _JUDGED
        document: dict[str, object] = {
            "result_code": int(result.code),
            "result_message": result.code.message,
            "claims": result.claims if judged else {},
            "detached_eat": result.token if judged else {},
        }
        if result.decision is not None:
            document["relying_party_policy"] = {
                "matched": result.decision.matched,
                "reasons": list(result.decision.reasons),
            }
        if result.verified_by is not None:
            document["verified_by"] = result.verified_by
        if result.refusals:
            document["refusals"] = [refusal.to_json() for refusal in result.refusals]
        document["appraisal"] = None
        if result.appraisal is not None:
            from nvattest.appraisal.serialize import appraisal_to_json

            document["appraisal"] = appraisal_to_json(result.appraisal)
        print(dump_json(document))
        return
    from nvattest.cli.terminal import terminal_for
    from nvattest.report.text import account, claims_account, decision_account, story

    if result.appraisal is None:
        say(claims_account(result.claims, result.code, result.verified_by or {}, result.refusals))
    else:
        from nvattest.report.reading import view_of

        view, terminal = view_of(result.appraisal), terminal_for()
        verbose = options.verbose or options.log_level in ("debug", "trace")
        text = (
            story(view, terminal, everything=options.verbose, saved=False)
            if options.explain
            else account(view, terminal, verbose=verbose)
        )
        say(text, colour=terminal.color)
    if result.decision is not None:
        say(decision_account(result.decision, result.code))
