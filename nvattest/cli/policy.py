"""``nvattest policy``: explain a policy, find its mistakes, and try it on saved claims."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nvattest._text import joined
from nvattest.cli.arguments import existing_file
from nvattest.cli.output import say
from nvattest.errors import InputError, NvattestError, ParseError, ResultCode

if TYPE_CHECKING:
    from nvattest.policy.relying_party import RelyingPartyPolicy

MAXIMUM_CLAIMS = 16 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``check FILE``; ``worker`` is the child of ``nvattest.policy.isolation`` in a frozen program."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))
    check = actions.add_parser(
        "check", help="say what a policy demands and where its mistakes are; with --claims, what it decides"
    )
    check.add_argument(
        "file", type=existing_file, metavar="FILE",
        help="an evidence policy (TOML or JSON), a JSON policy of NVIDIA's Python SDK, or Rego",
    )  # fmt: skip
    check.add_argument(
        "--claims", type=existing_file, metavar="FILE",
        help="try it on these: the output of nvattest -f json attest, or an array of device claims",
    )  # fmt: skip
    actions.add_parser("worker")


def run(options: argparse.Namespace) -> int:
    """Exit status 0: the policy can be used, and matches; 11: it does not match; others: it cannot be used."""
    if options.action == "worker":
        from nvattest.policy.isolation import worker

        worker()
        return 0
    try:
        return _check(options)
    except NvattestError as error:
        code = error.result_code
        _say(
            {"error": {"code": error.code, "message": str(error), "hint": error.hint}},
            code,
            [f"{error}", *([f"  next: {error.hint}"] if error.hint else [])],
            options,
        )
        return code.exit_status or ResultCode.UNKNOWN.exit_status


def _check(options: argparse.Namespace) -> int:
    from nvattest.collateral.folders import read_bounded
    from nvattest.policy.relying_party import MAXIMUM, is_relying_party_policy

    data = read_bounded(options.file, MAXIMUM)
    if not is_relying_party_policy(data, name=options.file):
        return _evidence_policy(data, options)
    from nvattest.policy.isolation import check_bounded, evaluate_bounded
    from nvattest.policy.relying_party import load_policy

    policy = load_policy(data, name=options.file)
    check_bounded(policy)
    facts, lines = _about(policy)
    if options.claims is None:
        _say(facts, ResultCode.OK, lines, options)
        return 0
    claims, overall = _saved_claims(read_bounded(options.claims, MAXIMUM_CLAIMS), options.claims)
    decision = evaluate_bounded(policy, claims, overall)
    code = ResultCode.OK if decision.matched else ResultCode.RP_POLICY_MISMATCH
    facts |= {"matched": decision.matched, "reasons": list(decision.reasons), "devices": len(claims)}
    word = "MATCH" if decision.matched else "NO MATCH"
    lines += ["", f"{word} on the claims of {len(claims)} devices in {options.claims}"]
    lines += [f"  {reason}" for reason in decision.reasons]
    lines.append("The claims were not verified: this says how the policy decides, not what is true.")
    _say(facts, code, lines, options)
    return code.exit_status


def _about(policy: RelyingPartyPolicy) -> tuple[dict[str, object], list[str]]:
    facts: dict[str, object] = {
        "kind": "relying-party",
        "language": policy.language.value,
        "sha256": policy.sha256,
        "demands": list(policy.explain()),
    }
    head = f"{policy.name}: a relying party's policy ({policy.language.value}), SHA-256 {policy.sha256}"
    return facts, [head, *(f"  {line}" for line in policy.explain())]


def _evidence_policy(data: bytes, options: argparse.Namespace) -> int:
    from nvattest.appraisal.serialize import policy_to_json
    from nvattest.policy.evidence_policy import explain_evidence_policy, load_evidence_policy

    policy = load_evidence_policy(data, source=options.file)
    if options.claims is not None:
        raise InputError(
            f"{options.file} is an evidence policy: it judges evidence, not claims",
            code="policy-kind",
            hint=f"nvattest attest --policy {options.file} with the evidence",
        )
    demands = explain_evidence_policy(policy)
    lines = [f"{options.file}: an evidence policy", *(f"  {line}" for line in demands)]
    weakened = list(policy.weakenings)
    if weakened:
        lines.append(f"WEAKER than the default: {', '.join(weakened)}; every appraisal and token will say so")
    facts: dict[str, object] = {
        "kind": "evidence",
        "weakened": weakened,
        "demands": list(demands),
        "policy": policy_to_json(policy),
    }
    _say(facts, ResultCode.OK, lines, options)
    return 0


def _saved_claims(data: bytes, path: str) -> tuple[list[dict[str, object]], dict[str, object] | None]:
    """The array of device claims in a file, and the overall claims where the file has a token with them."""
    from nvattest._documents import kind_of, load_json

    document = load_json(data, source=path, maximum=MAXIMUM_CLAIMS)
    overall = None
    if isinstance(document, dict):
        overall = _overall(document, path)
        document = document.get("claims")
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise ParseError(
            f"no array of claims but {kind_of(document)}",
            source=path,
            code="claims",
            hint="give the output of nvattest -f json attest, or its member 'claims'",
        )
    return document, overall


def _overall(document: dict[str, object], path: str) -> dict[str, object] | None:
    """``overall`` as it stands, or the unverified payload of the overall JWT in ``detached_eat``."""
    from nvattest._documents import load_json

    given = document.get("overall")
    if isinstance(given, dict):
        return given
    token = document.get("detached_eat")
    try:
        compact = token[0][1]  # type: ignore[index]
        payload = compact.split(".")[1]
    except (TypeError, IndexError, KeyError, AttributeError):
        return None
    import base64

    try:
        text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except ValueError:
        raise ParseError("the overall token in detached_eat is not base64url", source=path, code="base64") from None
    claims = load_json(text, source=f"{path}, overall token", maximum=MAXIMUM_CLAIMS)
    return claims if isinstance(claims, dict) else None


def _say(facts: dict[str, object], code: ResultCode, lines: list[str], options: argparse.Namespace) -> None:
    if options.format == "json":
        from nvattest._documents import dump_json

        print(dump_json({"result_code": int(code), "result_message": code.message, **facts}))
        return
    say(joined(lines))
