"""A CPU policy as a file: TOML or JSON in, the typed policy of the appraisal out.

The tables are the classes of ``nvattest.appraisal.guest`` and the keys their fields; all here follows from their
declarations. A key that is left out keeps its strict default. ``schemas/cpu-policy-1.json`` is the output of
``cpu_policy_schema``, for editors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from nvattest._documents import JsonObject, kind_of
from nvattest._text import suggestion
from nvattest.appraisal.guest import GENERATIONS, CpuPolicy, SnpDemands, TcbFloor, TdxDemands
from nvattest.appraisal.results import cpu_policy_to_json
from nvattest.errors import PolicyError
from nvattest.policy.evidence_policy import (
    PolicyDocument,
    declared_fields,
    explained,
    field_schemas,
    load_document,
    policy_schema,
    read_fields,
)

_MARKS: Final = re.compile(
    rb'nvattest-cpu-policy|^[ \t]*\[[ \t]*(?:tdx|snp)[ \t]*\]|"(?:tdx|snp)"[ \t\r\n]*:[ \t\r\n]*\{', re.MULTILINE
)
_WHAT: Final = "a CPU policy"
_FLOORS: Final = "minimum_tcb"
_KINDS: Final = "kinds"
_TABLES: Final[Mapping[str, type[Any]]] = {"tdx": TdxDemands, "snp": SnpDemands}


def is_cpu_policy(data: bytes) -> bool:
    """Whether this file is meant as one: by its format, or by a table that no other policy has."""
    return _MARKS.search(data) is not None


def load_cpu_policy(data: bytes, *, source: str) -> CpuPolicy:
    """Read a policy; a text that begins with ``{`` is JSON, any other is TOML.

    Args:
        data: the file, at most 64 KiB of UTF-8, or of UTF-16 with a byte order mark.
        source: what errors call it, such as its path.

    Raises:
        ParseError: neither TOML nor JSON, with the place.
        PolicyError: an unknown key (code ``policy-key``), a value that a key cannot have (``policy-value``), or no
            measurement is demanded (``policy-measurements``); with line and column where there is one.
    """
    document = load_document(data, source=source, kind="cpu")
    members = document.members
    for key in members:
        if key not in (*_TABLES, _KINDS):
            raise document.fail((key,), f"is not a key of {_WHAT}", suggestion(key, (*_TABLES, _KINDS)), "policy-key")
    kinds = _kinds(document, members)
    try:
        return CpuPolicy(**{name: _demands(document, name, members.get(name, {})) for name in kinds})
    except PolicyError as error:
        if error.message.startswith(source):
            raise
        raise PolicyError(f"{source}: {error.message}", code=error.code, hint=error.hint) from None


def _kinds(document: PolicyDocument, members: JsonObject) -> list[str]:
    tables = [name for name in _TABLES if name in members]
    kinds = members.get(_KINDS, tables)
    if not isinstance(kinds, list) or not kinds or any(kind not in [*_TABLES] for kind in kinds):
        raise document.fail((_KINDS,), "is no list of kinds of quotes", 'write kinds = ["tdx", "snp"]', "policy-value")
    for name in tables:
        if name not in kinds:
            hint = f"add {name!r} to kinds, or drop the table"
            raise document.fail((name,), "is not among kinds", hint, "policy-value")
    return list(dict.fromkeys(kinds))


def _demands(document: PolicyDocument, name: str, table: object) -> Any:
    members = dict(_table(document, (name,), table))
    known = tuple(declared_fields(_TABLES[name]))
    for key in members:
        if key not in known:
            hint = "no policy accepts debug" if key == "debug" else suggestion(key, known)
            raise document.fail((name, key), f"is not a key of {_WHAT}", hint, "policy-key")
    floors = members.pop(_FLOORS, None) if name == "snp" else None
    values = read_fields(document, members, _plain_fields(_TABLES[name]), _WHAT, (name,))
    if floors is not None:
        values[_FLOORS] = dict(_floors(document, (name, _FLOORS), floors))
    return _TABLES[name](**values)


def _floors(document: PolicyDocument, path: tuple[str, ...], table: object) -> Iterator[tuple[str, TcbFloor]]:
    for generation, floor in _table(document, path, table).items():
        place = (*path, generation)
        if generation not in GENERATIONS:
            raise document.fail(place, "is no generation", suggestion(generation, GENERATIONS), "policy-key")
        values = read_fields(document, _table(document, place, floor), declared_fields(TcbFloor), _WHAT, place)
        yield generation, TcbFloor(**values)  # type: ignore[arg-type]


def _table(document: PolicyDocument, path: tuple[str, ...], value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise document.fail(path, f"is {kind_of(value)}, expected a table", "", "policy-value")
    return value


def _plain_fields(demands: type[Any]) -> dict[str, Field[Any]]:
    return {name: field for name, field in declared_fields(demands).items() if name != _FLOORS}


def explain_cpu_policy(policy: CpuPolicy) -> tuple[str, ...]:
    """What the policy demands, a line for each field; those that differ from the strict default are marked."""
    lines = []
    shown_values = cpu_policy_to_json(policy)
    for name in _TABLES:
        demands, values = getattr(policy, name), shown_values[name]
        if not isinstance(values, dict):
            lines.append(f"{name}: quotes of this kind are refused")
            continue
        for field in fields(demands):
            value = values[field.name]
            weaker = f"{name}.{field.name}" in policy.weakenings or (field.name == "measurements" and value is not None)
            lines.append(explained(field, value, _default(field), weaker=weaker, table=f"{name}."))
    if policy.snp is not None and not policy.snp.minimum_tcb:
        lines.append(f"snp.{_FLOORS} names no generation, so that every SNP guest is refused")
    return tuple(lines)


def _default(field: Field[Any]) -> object:
    if field.default is MISSING:
        return {}
    return list(field.default) if isinstance(field.default, tuple) else field.default


def cpu_policy_schema() -> JsonObject:
    """The JSON Schema of such a file; ``schemas/cpu-policy-1.json`` is this."""
    floor = {"type": "object", "additionalProperties": False, "properties": _schemas(TcbFloor)}
    floors = {
        "description": declared_fields(SnpDemands)[_FLOORS].metadata["meaning"],
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(GENERATIONS, floor),
    }
    any_guest = {"required": ["measurements"], "properties": {"measurements": {"const": "any"}}}
    named = {
        "tdx": [_some("mrtd"), {"allOf": [_some("rtmr1"), _some("rtmr2")]}, any_guest],
        "snp": [_some("measurement"), any_guest],
    }
    tables: JsonObject = {
        name: {
            "description": (demands.__doc__ or "").partition("\n")[0],
            "type": "object",
            "additionalProperties": False,
            "anyOf": named[name],
            "properties": _schemas(demands) | ({_FLOORS: floors} if name == "snp" else {}),
        }
        for name, demands in _TABLES.items()
    }
    return policy_schema(
        "cpu",
        "A CPU policy",
        "What nvattest demands of a guest by its CPU's quote. A key left out keeps its strict default.",
        {_KINDS: {"type": "array", "items": {"enum": list(_TABLES)}, "minItems": 1}, **tables},
        anyOf=[{"required": [name]} for name in _TABLES],
    )


def _some(name: str) -> JsonObject:
    return {"required": [name], "properties": {name: {"minItems": 1}}}


def _schemas(demands: type[Any]) -> JsonObject:
    declared = _plain_fields(demands)
    schemas: dict[str, Any] = field_schemas(declared, {name: _default(field) for name, field in declared.items()})
    words = {name for name, field in declared.items() if isinstance(field.default, tuple) and "words" in field.metadata}
    return {name: {**schema, "minItems": 1} if name in words else schema for name, schema in schemas.items()}
