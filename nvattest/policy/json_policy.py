"""The JSON policies of NVIDIA's Python SDK, file versions 2.0, 3.0 and 4.0, unchanged.

    {"version": "4.0", "authorization-rules": {"type": "JWT", "overall-claims": {…}, "detached-claims": {…}}}

Every rule has to be there among the claims, and equal; objects are compared member by member, and members without a
rule are free. Stricter than the SDK: true is not 1, no device is no match, a section or object without rules and a key
that means nothing are refused, and the version is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from nvattest._documents import JsonObject, JsonPath, json_positions, kind_of, load_json, located
from nvattest._text import suggestion
from nvattest.errors import PolicyError, ResultCode
from nvattest.policy.decision import PolicyDecision, PolicyInput

MAXIMUM: Final = 256 * 1024
VERSIONS: Final = ("2.0", "3.0", "4.0")
_MAXIMUM_REASONS: Final = 64
_MAXIMUM_DEPTH: Final = 16
_RULES: Final = "authorization-rules"
_SECTIONS: Final = ("overall-claims", "detached-claims")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPolicy:
    """``overall`` are the rules for the overall token, ``detached`` those for each device."""

    version: str
    overall: Mapping[str, object]
    detached: Mapping[str, object]

    def check(self) -> None:
        """``load_json_policy`` has checked everything."""

    def evaluate(self, claims: PolicyInput, overall: Mapping[str, object] | None) -> PolicyDecision:
        """Compare; without ``overall`` no rule of the overall section can hold.

        Raises:
            PolicyError: an EAR (code ``policy-ear``).
        """
        if isinstance(claims, Mapping):
            raise PolicyError("JSON policies know no EAR", code="policy-ear", hint="use a Rego policy")
        reasons = list(_differences("overall", self.overall, {} if overall is None else overall))
        if overall is None:
            reasons = ["there are no overall claims to compare with"]
        if not claims:
            reasons.append("there is no device")
        for position, device in enumerate(claims):
            reasons += _differences(f"device {position}", self.detached, device)
        if len(reasons) > _MAXIMUM_REASONS:
            reasons[_MAXIMUM_REASONS:] = [f"and {len(reasons) - _MAXIMUM_REASONS} more"]
        return PolicyDecision(matched=not reasons, reasons=tuple(reasons))

    def explain(self) -> tuple[str, ...]:
        lines = [f"NVIDIA's JSON policy, version {self.version}; at least one device"]
        for what, rules in (("the overall token", self.overall), ("every device", self.detached)):
            lines += [f"{what}: {name} = {_shown(value)}" for name, value in _flat(rules)]
        return tuple(lines)


def load_json_policy(data: bytes, *, name: str) -> JsonPolicy:
    """Read a policy of at most 256 KiB.

    Raises:
        ParseError: not JSON, with its place.
        PolicyError: not such a policy (code ``policy-key``, ``policy-value``, ``policy-empty``), with its place.
    """
    document = load_json(data, source=name, maximum=MAXIMUM, result_code=ResultCode.POLICY_EVALUATION_ERROR)
    text = data.decode("utf-8")
    places = json_positions(text)

    def fail(path: JsonPath, message: str, code: str, hint: str = "") -> PolicyError:
        where = located(name, text, places.get(path))
        return PolicyError(f"{where}: {'.'.join(map(str, path)) or 'the policy'} {message}", code=code, hint=hint)

    def member(value: object, path: JsonPath, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> JsonObject:
        if not isinstance(value, dict):
            raise fail(path, f"is {kind_of(value)}, expected an object", "policy-value")
        for key in value:
            if key not in keys + optional:
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
    return JsonPolicy(version=str(top["version"]), overall=overall, detached=detached)


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
