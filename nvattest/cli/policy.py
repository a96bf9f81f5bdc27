"""``nvattest policy``: explain a policy, find its mistakes, and try it on saved claims."""

from __future__ import annotations

import argparse
from typing import Final, NamedTuple

from nvattest._documents import JsonObject, kind_of, load_json
from nvattest._text import joined
from nvattest.cli.arguments import input_file, read_input
from nvattest.cli.output import print_json, say
from nvattest.errors import InputError, NvattestError, ParseError, ResultCode

MAXIMUM_CLAIMS = 16 * 1024 * 1024
# Of the policies that judge no claims: what they are called, what they judge, with which command, and where it is said.
_JUDGES: Final = {
    "evidence": (
        "an evidence policy", "evidence", "nvattest attest --policy {} with the evidence", "every appraisal and token"
    ),
    "cpu": (
        "a CPU policy", "a guest's quote", "nvattest verify-token --tee-quote FILE --cpu-policy {}", "every verdict"
    ),
}  # fmt: skip


class Answer(NamedTuple):
    """What there is to say of a policy, for programs and for people."""

    code: ResultCode
    facts: JsonObject
    lines: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``check FILE``; ``worker`` is the child of ``nvattest.policy.isolation`` in a frozen program."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))
    check = actions.add_parser(
        "check", help="say what a policy demands and where its mistakes are; with --claims, what it decides"
    )
    check.add_argument(
        "file", type=input_file, metavar="FILE",
        help="an evidence or CPU policy (TOML or JSON), a JSON policy of NVIDIA's Python SDK, or Rego",
    )  # fmt: skip
    check.add_argument(
        "--claims", type=input_file, metavar="FILE",
        help="try it on these: the output of nvattest -f json attest, or an array of device claims",
    )  # fmt: skip
    actions.add_parser("worker")


def run(options: argparse.Namespace) -> int:
    """Exit status 0: the policy can be used, and matches; 11: it does not match; others: it cannot be used."""
    if options.action == "worker":
        from nvattest.policy.isolation import worker

        worker()
        return 0
    as_json = options.format == "json"
    try:
        answer = _check(options.file, options.claims)
    except NvattestError as error:
        if as_json:
            print_json("policy-check", {}, error=error)
        else:
            say(joined([f"{error}", *([f"  next: {error.hint}"] if error.hint else [])]))
        return error.result_code.exit_status or ResultCode.UNKNOWN.exit_status
    if as_json:
        print_json("policy-check", answer.facts, code=answer.code)
    else:
        say(joined(answer.lines))
    return answer.code.exit_status


def _check(path: str, claims_path: str | None) -> Answer:
    from nvattest.policy.rego import MAXIMUM

    data = read_input(path, MAXIMUM)
    try:
        return _check_data(data, path, claims_path)
    except NvattestError as error:
        from nvattest.cli.sources import wrong_kind

        raise wrong_kind(error, data, "FILE", path, "policy", "evidence-policy", "cpu-policy") or error from None


def _check_data(data: bytes, path: str, claims_path: str | None) -> Answer:
    from nvattest.policy.cpu_policy import is_cpu_policy
    from nvattest.policy.isolation import evaluate_bounded
    from nvattest.policy.relying_party import is_relying_party_policy, load_policy

    if is_cpu_policy(data):
        return _demands(data, path, claims_path, "cpu")
    if not is_relying_party_policy(data, name=path):
        return _demands(data, path, claims_path, "evidence")
    policy = load_policy(data, name=path)
    # On no claims, which compiles it.
    evaluate_bounded(policy, [])
    demands = policy.explain()
    head = f"{policy.name}: a relying party's policy ({policy.language.value}), SHA-256 {policy.sha256}"
    lines = [head, *(f"  {line}" for line in demands)]
    facts: JsonObject = {
        "kind": "relying-party",
        "language": policy.language.value,
        "sha256": policy.sha256,
        "demands": list(demands),
    }
    if claims_path is None:
        return Answer(ResultCode.OK, facts, lines)
    claims, overall = _saved_claims(read_input(claims_path, MAXIMUM_CLAIMS), claims_path)
    decision = evaluate_bounded(policy, claims, overall)
    facts |= {"matched": decision.matched, "reasons": list(decision.reasons), "devices": len(claims)}
    word = "MATCH" if decision.matched else "NO MATCH"
    lines += ["", f"{word} on the claims of {len(claims)} devices in {claims_path}"]
    lines += [f"  {reason}" for reason in decision.reasons]
    lines.append("The claims were not verified: this says how the policy decides, not what is true.")
    return Answer(ResultCode.OK if decision.matched else ResultCode.RP_POLICY_MISMATCH, facts, lines)


def _demands(data: bytes, path: str, claims_path: str | None, kind: str) -> Answer:
    """What an evidence policy or a CPU policy demands; neither is tried on claims."""
    from nvattest.appraisal.results import cpu_policy_to_json, policy_to_json
    from nvattest.policy.cpu_policy import explain_cpu_policy, load_cpu_policy
    from nvattest.policy.evidence_policy import explain_evidence_policy, load_evidence_policy

    if kind == "cpu":
        cpu = load_cpu_policy(data, source=path)
        demands, weakened, policy = list(explain_cpu_policy(cpu)), list(cpu.weakenings), cpu_policy_to_json(cpu)
    else:
        own = load_evidence_policy(data, source=path)
        demands, weakened, policy = list(explain_evidence_policy(own)), list(own.weakenings), policy_to_json(own)
    words, subject, command, results = _JUDGES[kind]
    if claims_path is not None:
        raise InputError(
            f"{path} is {words}: it judges {subject}, not claims", code="policy-kind", hint=command.format(path)
        )
    lines = [f"{path}: {words}", *(f"  {line}" for line in demands)]
    if weakened:
        lines.append(f"WEAKER than the default: {', '.join(weakened)}; {results} will say so")
    facts: JsonObject = {"kind": kind, "weakened": weakened, "demands": demands, "policy": policy}
    return Answer(ResultCode.OK, facts, lines)


def _saved_claims(data: bytes, path: str) -> tuple[list[JsonObject], JsonObject | None]:
    """The array of device claims in a file, and the overall claims where the file has a token with them."""
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


def _overall(document: JsonObject, path: str) -> JsonObject | None:
    """``overall`` as it stands, or the unverified payload of the overall JWT in ``detached_eat``."""
    from nvattest.token.jose import jwt_part

    given = document.get("overall")
    if isinstance(given, dict):
        return given
    token = document.get("detached_eat")
    try:
        payload = token[0][1].split(".")[1]  # type: ignore[index]
    except (TypeError, IndexError, KeyError, AttributeError):
        return None
    return jwt_part(payload, f"{path}, overall token")
