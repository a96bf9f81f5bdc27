"""An evidence policy as a file: TOML or JSON in, the typed policy of the appraisal out; and back.

The keys are the fields of ``nvattest.appraisal.policy.EvidencePolicy``; what is left out keeps its strict default.
``format`` and ``version`` may stand beside them. ``schemas/evidence-policy-1.json`` says the same for editors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Final

from nvattest._documents import JsonObject, dump_json, file_text, load_json, load_toml
from nvattest.appraisal.policy import EvidencePolicy
from nvattest.appraisal.serialize import policy_to_json
from nvattest.errors import ParseError, PolicyError, ResultCode
from nvattest.policy._fields import FIELDS, suggestion, type_name
from nvattest.policy._positions import json_positions, line_and_column, toml_position

FORMAT: Final = "nvattest-evidence-policy"
VERSION: Final = 1
MAXIMUM: Final = 64 * 1024

_HEADER: Final = {"format": FORMAT, "version": VERSION}


def load_evidence_policy(data: bytes, *, source: str) -> EvidencePolicy:
    """Read a policy; a text that begins with ``{`` is JSON, any other is TOML.

    Args:
        data: the file, at most 64 KiB of UTF-8, or of UTF-16 with a byte order mark.
        source: what errors call it, such as its path.

    Raises:
        ParseError: neither TOML nor JSON, with the place.
        PolicyError: an unknown key (code ``policy-key``) or a value that a key cannot have (``policy-value``), with
            line, column and a suggestion.
    """
    if len(data) > MAXIMUM:
        raise _syntax(f"{len(data)} bytes, at most {MAXIMUM} are read", source, code="too-large")
    try:
        read = file_text(data)
        text = read if isinstance(read, str) else read.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _syntax("not UTF-8", source, offset=error.start, code="encoding") from None
    if text.lstrip().startswith("{"):
        document = _load_json(text, source)
        places = json_positions(text)
        return _policy(document, source, text, lambda key: places.get((key,)))
    document = load_toml(
        text.encode("utf-8"), source=source, maximum=MAXIMUM, result_code=ResultCode.POLICY_EVALUATION_ERROR
    )
    return _policy(document, source, text, lambda key: toml_position(text, key))


def dump_evidence_policy(policy: EvidencePolicy, *, form: str = "toml") -> str:
    """The policy as a file, every field named; ``form`` is ``"toml"`` or ``"json"``."""
    values = _HEADER | policy_to_json(policy)
    if form == "json":
        return dump_json(values) + "\n"
    # Texts of a valid policy are ASCII without control characters: JSON and TOML spell them alike.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)


def explain_evidence_policy(policy: EvidencePolicy) -> tuple[str, ...]:
    """What the policy demands, a sentence for each field; what differs from the strict default is marked."""
    default, values = policy_to_json(EvidencePolicy()), policy_to_json(policy)
    lines = []
    for field in fields(policy):
        value = values[field.name]
        mark = "" if value == default[field.name] else "  changed"
        mark = "  WEAKER" if field.name in policy.weakenings else mark
        shown = "not set" if value is None or value == [] else json.dumps(value)
        lines.append(f"{field.name} = {shown}{mark}: {FIELDS[field.name][1]}")
    return tuple(lines)


def evidence_policy_schema() -> JsonObject:
    """The JSON Schema of such a file; ``schemas/evidence-policy-1.json`` is this."""
    default = policy_to_json(EvidencePolicy())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:nvattest:schema:evidence-policy:1",
        "title": "An evidence policy",
        "description": "What nvattest demands of evidence. What is left out keeps its strict default.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string"},
            "format": {"const": FORMAT},
            "version": {"const": VERSION},
            **{
                name: {"description": meaning, "default": default[name], **kind.schema()}
                for name, (kind, meaning) in FIELDS.items()
            },
        },
    }


def _policy(document: JsonObject, source: str, text: str, find: Callable[[str], int | None]) -> EvidencePolicy:
    def fail(key: str, message: str, hint: str, code: str = "policy-value") -> PolicyError:
        offset = find(key)
        where = source if offset is None else "{}, line {}, column {}".format(source, *line_and_column(text, offset))
        return PolicyError(f"{where}: {key[:80]} {message}", code=code, hint=hint)

    values: dict[str, object] = {}
    for key, value in document.items():
        if key in _HEADER:
            if type(value) is not type(_HEADER[key]) or value != _HEADER[key]:
                shown = repr(value)[:80] if isinstance(value, str | int) else type_name(value)
                raise fail(key, f"is {shown}, expected {_HEADER[key]!r}", "this program reads version 1")
        elif key in FIELDS:
            values[key] = FIELDS[key][0].read(
                value,
                lambda message, hint, name=key: fail(name, message, hint),  # type: ignore[misc]
            )
        elif key != "$schema":
            raise fail(key, "is not a key of an evidence policy", suggestion(key, tuple(FIELDS)), "policy-key")
    return EvidencePolicy(**values)  # type: ignore[arg-type]


def _load_json(text: str, source: str) -> JsonObject:
    try:
        document = load_json(text, source=source, maximum=MAXIMUM, result_code=ResultCode.POLICY_EVALUATION_ERROR)
    except ParseError as error:
        if error.offset is None:
            raise
        offset = len(text.encode()[: error.offset].decode("utf-8", "ignore"))
        raise _syntax("not JSON", source, offset=error.offset, place=line_and_column(text, offset)) from None
    if not isinstance(document, dict):
        raise _syntax(f"the policy is {type_name(document)}, expected an object", source)
    return document


def _syntax(
    message: str, source: str, *, offset: int | None = None, place: tuple[int, int] | None = None, code: str = "json"
) -> ParseError:
    where = "" if place is None else f"line {place[0]}, column {place[1]}: "
    return ParseError(
        where + message, source=source, offset=offset, code=code, result_code=ResultCode.POLICY_EVALUATION_ERROR
    )
