"""A relying party's policy, in whichever language it is written; its decision, and the appraisal together with it.

NVIDIA_JSON are the policies of NVIDIA's Python SDK, file versions 2.0, 3.0 and 4.0, unchanged.

    {"version": "4.0", "authorization-rules": {"type": "JWT", "overall-claims": {…}, "detached-claims": {…}}}

Every rule has to be there among the claims, and equal; objects are compared member by member, and members without a
rule are free. Stricter than the SDK: true is not 1, no device is no match, a section or object without rules and a key
that means nothing are refused, and the version is read.

REGO are those of NVIDIA's C++ tools and of OPA (``nvattest.policy.rego``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final

from nvattest._documents import JsonObject, JsonPath, json_positions, kind_of, load_json, located
from nvattest._text import suggestion
from nvattest.appraisal.check import REQUIRED, REQUIRED_PLATFORM, Outcome
from nvattest.appraisal.inputs import Source
from nvattest.appraisal.results import Appraisal
from nvattest.errors import PolicyError, ResultCode
from nvattest.model import NoTruthValue
from nvattest.pki.ocsp import NonceOutcome
from nvattest.policy import rego

VERSIONS: Final = ("2.0", "3.0", "4.0")
_MAXIMUM_REASONS: Final = 64
_MAXIMUM_DEPTH: Final = 16
_RULES: Final = "authorization-rules"
_SECTIONS: Final = ("overall-claims", "detached-claims")
# A Rego file begins, after comments, with its package; no TOML key is followed by a bare word.
_REGO: Final = re.compile(rb"(?:\s|#[^\n]*(?:\n|$))*package\s")
# These platform checks bind the claims to this platform and this moment; no policy on claims can replace them.
_NEVER_OVERRIDDEN = frozenset({"devices-distinct", "one-nonce"})
_NONCE = "x-nvidia-cert-ocsp-nonce-matches"

# What a policy decides on: the claims of each device, or the payload of an EAR.
PolicyInput = Sequence[Mapping[str, object]] | Mapping[str, object]


class PolicyLanguage(Enum):
    """The languages; the value is the word in results and tokens."""

    NVIDIA_JSON = "nvidia-json"
    REGO = "rego"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision(NoTruthValue):
    """A relying party's answer: ``matched``, and why, one sentence each (empty for a Rego policy that matched)."""

    matched: bool
    reasons: tuple[str, ...] = ()

    _ask: ClassVar[str] = ".matched"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelyingPartyPolicy:
    """A relying party's policy. ``data`` is its file, byte for byte; ``sha256`` names it in tokens."""

    language: ClassVar[PolicyLanguage]
    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the file."""
        return hashlib.sha256(self.data).hexdigest()

    def evaluate(self, document: PolicyInput, overall: Mapping[str, object] | None = None) -> PolicyDecision:
        """Decide on the claims of all devices, or on an EAR.

        Rego runs in this process: see ``nvattest.policy.isolation`` for untrusted policies.

        Args:
            document: one object per device, as ``nvattest.claims_of`` makes them or a verified token holds them; or
                the payload of an EAR, for Rego only.
            overall: the claims of the overall token. Only JSON policies have rules for them, which none can keep
                without these.

        Raises:
            PolicyError: the policy cannot be compiled or fails while it runs, or knows no EAR (``policy-ear``). Never a
                verdict.
        """
        raise NotImplementedError

    def explain(self) -> tuple[str, ...]:
        """What it demands, line by line."""
        raise NotImplementedError

    def provenance(self, decision: PolicyDecision, *, overrides: bool) -> JsonObject:
        """What the token says of this policy (``relying_party`` of ``nvattest.token``)."""
        return {
            "name": self.name,
            "language": self.language.value,
            "sha256": self.sha256,
            "matched": decision.matched,
            "overrides_appraisal": overrides,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RegoPolicy(RelyingPartyPolicy):
    """The text of a policy whose form was checked and that nothing has compiled."""

    language = PolicyLanguage.REGO
    source: str

    def evaluate(self, document: PolicyInput, overall: Mapping[str, object] | None = None) -> PolicyDecision:  # noqa: ARG002
        """Ask ``nv_match`` about the array of claims, or about an EAR."""
        question = dict(document) if isinstance(document, Mapping) else list(document)
        refusal = rego.refusal(self.source, question, name=self.name)
        return PolicyDecision(matched=refusal is None, reasons=() if refusal is None else (refusal,))

    def explain(self) -> tuple[str, ...]:
        return (
            f"Rego policy of {len(self.source.splitlines())} lines, package policy",
            "input: the array of device claims; it matches if nv_match is true, and only then",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPolicy(RelyingPartyPolicy):
    """``overall`` are the rules for the overall token, ``detached`` those for each device."""

    language = PolicyLanguage.NVIDIA_JSON
    version: str
    overall: Mapping[str, object]
    detached: Mapping[str, object]

    def evaluate(self, document: PolicyInput, overall: Mapping[str, object] | None = None) -> PolicyDecision:
        """Compare the rules with the claims."""
        if isinstance(document, Mapping):
            raise PolicyError("JSON policies know no EAR", code="policy-ear", hint="use a Rego policy")
        reasons = ["there are no overall claims to compare with"]
        if overall is not None:
            reasons = list(_differences("overall", self.overall, overall))
        if not document:
            reasons.append("there is no device")
        for position, device in enumerate(document):
            reasons += _differences(f"device {position}", self.detached, device)
        if len(reasons) > _MAXIMUM_REASONS:
            reasons[_MAXIMUM_REASONS:] = [f"and {len(reasons) - _MAXIMUM_REASONS} more"]
        return PolicyDecision(matched=not reasons, reasons=tuple(reasons))

    def explain(self) -> tuple[str, ...]:
        lines = [f"NVIDIA's JSON policy, version {self.version}; at least one device"]
        for what, rules in (("the overall token", self.overall), ("every device", self.detached)):
            lines += [f"{what}: {name} = {_shown(value)}" for name, value in _flat(rules)]
        return tuple(lines)


def load_policy(data: bytes, *, name: str) -> RelyingPartyPolicy:
    """Read a policy; a text that begins with ``{`` is JSON, any other is Rego.

    Args:
        data: the file, at most 256 KiB of UTF-8.
        name: what errors and tokens call it, such as its file name.

    Raises:
        ParseError: JSON that is not well formed.
        PolicyError: a policy that cannot be used; code and place say why. Whether Rego compiles, ``evaluate`` says.
    """
    if data.lstrip()[:1] == b"{":
        return load_json_policy(data, name=name)
    return RegoPolicy(name=name, data=data, source=rego.checked(data, name=name))


def is_relying_party_policy(data: bytes, *, name: str) -> bool:
    """Whether a file is a relying party's policy, rather than an evidence policy; its name decides where it can.

    JSON is NVIDIA's if it holds ``authorization-rules`` anywhere.
    """
    if data.lstrip()[:1] == b"{":
        return b"authorization-rules" in data
    return name.endswith(".rego") or _REGO.match(data) is not None


# --- NVIDIA's JSON policies -------------------------------------------------------------------------------------------


def load_json_policy(data: bytes, *, name: str) -> JsonPolicy:
    """Read a policy of NVIDIA's Python SDK, with the errors of ``load_policy``."""
    document = load_json(data, source=name, maximum=rego.MAXIMUM, result_code=ResultCode.POLICY_EVALUATION_ERROR)
    text = data.decode("utf-8")
    places = json_positions(text)

    def fail(path: JsonPath, message: str, code: str, hint: str = "") -> PolicyError:
        where = located(name, text, places.get(path))
        return PolicyError(f"{where}: {'.'.join(map(str, path)) or 'the policy'} {message}", code=code, hint=hint)

    def member(value: object, path: JsonPath, keys: tuple[str, ...]) -> JsonObject:
        if not isinstance(value, dict):
            raise fail(path, f"is {kind_of(value)}, expected an object", "policy-value")
        for key in value:
            if key not in keys:
                hint = suggestion(key, keys)
                raise fail((*path, key), "is not a key of NVIDIA's JSON policies", "policy-key", hint)
        for key in keys:
            if key not in value:
                hint = "files of version 1.0 are flat; NVIDIA's SDK does not read them either" if not path else ""
                raise fail(path, f"has no {key!r}", "policy-key", hint)
        return value

    def rules(value: object, path: JsonPath) -> JsonObject:
        if not isinstance(value, dict):
            raise fail(path, f"is {kind_of(value)}, expected an object", "policy-value")
        if not value:
            raise fail(path, "is empty and would demand nothing", "policy-empty", "name at least one claim")
        if len(path) > _MAXIMUM_DEPTH:
            raise fail(path, f"is nested more than {_MAXIMUM_DEPTH} deep", "policy-value")
        for key, item in value.items():
            if isinstance(item, dict):
                rules(item, (*path, key))
            elif not _is_shallow(item, _MAXIMUM_DEPTH):
                raise fail((*path, key), f"is nested more than {_MAXIMUM_DEPTH} deep", "policy-value")
        return value

    top = member(document, (), ("version", _RULES))
    if top["version"] not in VERSIONS:
        raise fail(
            ("version",),
            f"is {_shown(top['version'])}, expected a text",
            "policy-value",
            f"one of {', '.join(VERSIONS)}",
        )
    body = member(top[_RULES], (_RULES,), ("type", *_SECTIONS))
    if body["type"] != "JWT":
        raise fail((_RULES, "type"), f"is {_shown(body['type'])}, expected 'JWT'", "policy-value")
    overall, detached = (rules(body[section], (_RULES, section)) for section in _SECTIONS)
    return JsonPolicy(name=name, data=data, version=str(top["version"]), overall=overall, detached=detached)


def _differences(where: str, rules: Mapping[str, object], claims: Mapping[str, object]) -> Iterator[str]:
    for name, expected in rules.items():
        if name not in claims:
            yield f"{where}: {name} is not among the claims, expected {_shown(expected)}"
            continue
        found = claims[name]
        if isinstance(expected, dict) and isinstance(found, dict):
            yield from _differences(f"{where}: {name}", expected, found)
        elif not _equal(expected, found):
            yield f"{where}: {name} is {_shown(found)}, expected {_shown(expected)}"


def _equal(expected: object, found: object) -> bool:
    """Equality of JSON values that does not take true for 1, nor 1 for 1.0."""
    if type(expected) is not type(found):
        return False
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(_equal, expected, found))
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(_equal(value, found[key]) for key, value in expected.items())
    return expected == found


def _flat(rules: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in rules.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_shallow(value: object, depth: int) -> bool:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)
    return True


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        # Claims may come from a program, not from JSON.
        text = type(value).__name__
    return text if len(text) <= 120 else text[:117] + "..."


# --- the appraisal together with a decision (RFC 9334, 8.5) -----------------------------------------------------------


def kept_answers(appraisal: Appraisal) -> frozenset[Source]:
    """The sources of revocation answers that were not made for this request: these echo no nonce."""
    kept = set()
    for device in appraisal.devices:
        for chain in (device.chain, *(rim.chain for rim in device.rims.values())):
            if chain is None:
                continue
            for item in chain.revocations:
                if item.source not in (None, Source.LIVE) and item.revocation.nonce is not NonceOutcome.MATCH:
                    kept.add(item.source)
    return frozenset(kept)


def as_if_fresh(claims: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The claims as if every revocation answer echoed a nonce: to find why a policy failed."""
    return [
        {
            name: {**value, _NONCE: True} if isinstance(value, Mapping) and value.get(_NONCE) is False else value
            for name, value in device.items()
        }
        for device in claims
    ]


def combine(appraisal: Appraisal, decision: PolicyDecision, *, overrides: bool = False) -> tuple[bool, ResultCode]:
    """Whether the platform is trusted with the relying party's policy, and the result code that says so.

    The policy adds to the appraisal: both have to agree. A good appraisal that the policy refuses is code 11. With
    ``overrides`` the policy decides alone, but only over an appraisal that is good, or whose failures are all of the
    kind that NVIDIA's tools report as an overall result of false (code 12): values, validity, revocation, debug,
    versions. Signatures, nonces, chains, firmware ids, reference manifests that are missing or not signed, a check
    that was never made, and a device that appears twice are beyond every policy.
    """
    if overrides and (hard := _not_overridable(appraisal)) is not None:
        return False, hard
    if not overrides and not appraisal.trusted:
        return False, _failure(appraisal.result_code)
    return (True, ResultCode.OK) if decision.matched is True else (False, ResultCode.RP_POLICY_MISMATCH)


def _failure(code: ResultCode) -> ResultCode:
    return ResultCode.OVERALL_RESULT_FALSE if code is ResultCode.OK else code


def _not_overridable(appraisal: Appraisal) -> ResultCode | None:
    """The code of a failure that no policy may override, or None.

    All failures are looked at: the appraisal's own code is that of its first bad device, and another may be worse.
    """
    if not appraisal.devices:
        return ResultCode.OVERALL_RESULT_FALSE
    lists = [(device.checks, REQUIRED[device.kind]) for device in appraisal.devices]
    lists.append((appraisal.checks, REQUIRED_PLATFORM))
    for checks, required in lists:
        bad = [check for check in checks if not check.acceptable]
        hard = [check for check in bad if check.code is not ResultCode.OVERALL_RESULT_FALSE]
        if hard:
            # As in the appraisal, a skipped check gives its code only where no other failed.
            failed = [check for check in hard if check.outcome is not Outcome.SKIPPED] or hard
            return _failure(min(failed, key=lambda check: check.rank).code)
        if any(check.id in _NEVER_OVERRIDDEN for check in bad):
            return ResultCode.OVERALL_RESULT_FALSE
        present = {check.id for check in checks}
        if any(name not in present for name in required):
            return ResultCode.OVERALL_RESULT_FALSE
    return None
