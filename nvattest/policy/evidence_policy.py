"""Policies as files: TOML or JSON in, the fields of a declared policy out; and the evidence policy's file.

What a field may hold follows from its declaration: its type, and the bounds in its metadata. A mistake has line, column
and a suggestion. The keys of an evidence policy are the fields of ``EvidencePolicy``; one that is left out keeps its
strict default. ``format`` and ``version`` may be there, too. ``schemas/evidence-policy-1.json`` is the output of
``evidence_policy_schema``, for editors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from datetime import date
from enum import Enum
from functools import partial
from typing import Any, Final, NamedTuple

from nvattest._documents import (
    JsonObject,
    dump_json,
    file_text,
    json_positions,
    kind_of,
    line_and_column,
    load_json,
    load_toml,
    located,
    toml_position,
)
from nvattest._text import suggestion
from nvattest.appraisal.inputs import VBIOS_VERSION, VERSION_EXAMPLES, EvidencePolicy, RevocationMode, TopologyRule
from nvattest.appraisal.results import policy_to_json
from nvattest.errors import ParseError, PolicyError, ResultCode
from nvattest.model import Architecture

MAXIMUM: Final = 64 * 1024
Path = tuple[str, ...]
_VERSION: Final = 1
_ANOTHER: Final = "it is another kind of file: nvattest inspect FILE says which"


class PolicyDocument(NamedTuple):
    """A file, read: its members beside the header, and what makes an error at a key's place (the whole path)."""

    members: JsonObject
    fail: Callable[[Path, str, str, str], PolicyError]


def load_document(data: bytes, *, source: str, kind: str) -> PolicyDocument:
    """Read a policy's file of at most 64 KiB, UTF-8 or marked UTF-16; ``{`` begins JSON, any other text is TOML.

    ``kind`` is its ``format`` without the program's name; the header may be left out, or name that and version 1.

    Raises:
        ParseError: larger than 64 KiB, or neither TOML nor JSON, with the place.
        PolicyError: another format or version (code ``policy-value``).
    """
    syntax = partial(ParseError, source=source, result_code=ResultCode.POLICY_EVALUATION_ERROR)
    if len(data) > MAXIMUM:
        raise syntax(f"{len(data)} bytes, at most {MAXIMUM} are read", code="too-large")
    try:
        read = file_text(data)
        text = read if isinstance(read, str) else read.decode("utf-8")
    except UnicodeDecodeError as error:
        raise syntax("not UTF-8", offset=error.start, code="encoding") from None
    is_json = text.lstrip().startswith("{")
    load = load_json if is_json else load_toml
    try:
        members = load(text.encode(), source=source, maximum=MAXIMUM, result_code=ResultCode.POLICY_EVALUATION_ERROR)
    except ParseError as error:
        if not is_json or error.offset is None:
            raise
        place = line_and_column(text, len(text.encode()[: error.offset].decode("utf-8", "ignore")))
        raise syntax("line {}, column {}: not JSON".format(*place), offset=error.offset, code="json") from None
    if not isinstance(members, dict):
        raise syntax(f"the policy is {kind_of(members)}, expected an object", code="json")

    def fail(path: Path, message: str, hint: str, code: str) -> PolicyError:
        place = json_positions(text).get(path) if is_json else _toml_place(text, path)
        return PolicyError(f"{located(source, text, place)}: {'.'.join(path)[:80]} {message}", code=code, hint=hint)

    header = {"format": f"nvattest-{kind}-policy", "version": _VERSION}
    for key in [key for key in members if key in header]:
        value, expected = members[key], header[key]
        if type(value) is not type(expected) or value != expected:
            shown = repr(value)[:80] if isinstance(value, str | int) else kind_of(value)
            hint = f"this program reads version {_VERSION}" if key == "version" else _ANOTHER
            raise fail((key,), f"is {shown}, expected {expected!r}", hint, "policy-value")
    rest = {key: value for key, value in members.items() if key not in (*header, "$schema")}
    return PolicyDocument(rest, fail)


def _toml_place(text: str, path: Path) -> int | None:
    *tables, key = path
    header = re.search(rf"^[ \t]*\[[ \t]*{re.escape('.'.join(tables))}[ \t]*\]", text, re.MULTILINE) if tables else None
    start = 0 if header is None else header.end()
    place = toml_position(text[start:], key)
    return None if place is None else start + place


def read_fields(
    document: PolicyDocument,
    members: Mapping[str, object],
    declared: Mapping[str, Field[Any]],
    what: str,
    path: Path = (),
) -> dict[str, object]:
    """The values of these members as those of the declared fields.

    Raises:
        PolicyError: an unknown key (code ``policy-key``) or a value that a key cannot have (``policy-value``), with
            line, column and a suggestion.
    """
    values: dict[str, object] = {}
    for key, value in members.items():
        if key not in declared:
            raise document.fail((*path, key), f"is not a key of {what}", suggestion(key, tuple(declared)), "policy-key")
        try:
            values[key] = field_kind(declared[key]).read(value)
        except WrongError as wrong:
            message, hint = wrong.args
            raise document.fail((*path, key), message, hint, "policy-value") from None
    return values


def policy_schema(kind: str, title: str, description: str, properties: JsonObject, **more: object) -> JsonObject:
    """The JSON Schema of a policy's file, with its header."""
    header = {
        "$schema": {"type": "string"},
        "format": {"const": f"nvattest-{kind}-policy"},
        "version": {"const": _VERSION},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:nvattest:schema:{kind}-policy:{_VERSION}",
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": False,
        **more,
        "properties": header | properties,
    }


def field_schemas(declared: Mapping[str, Field[Any]], defaults: Mapping[str, object]) -> JsonObject:
    """Each field as JSON Schema, with its meaning and its default."""
    return {
        name: {"description": field.metadata["meaning"], "default": defaults[name], **field_kind(field).schema()}
        for name, field in declared.items()
    }


# --- what a field may hold in a file ----------------------------------------------------------------------------------


class WrongError(Exception):
    """What is wrong with a value, and what to do or an empty text; the reader adds the key and its place."""


# What a field may hold: each kind reads a value of a file, or raises WrongError, and says the same as JSON Schema.


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: object) -> object:
        if type(value) is not bool:
            raise WrongError(f"is {kind_of(value)}, expected true or false", "")
        return value

    def schema(self) -> JsonObject:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from 0."""

    maximum: int

    def read(self, value: object) -> object:
        if type(value) is not int:
            raise WrongError(f"is {kind_of(value)}, expected a whole number", "")
        if not 0 <= value <= self.maximum:
            raise WrongError(f"is {value}, expected 0 to {self.maximum}", "")
        return value

    def schema(self) -> JsonObject:
        return {"type": "integer", "minimum": 0, "maximum": self.maximum}


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a list; the values are what the words mean."""

    meanings: Mapping[str, object]

    def read(self, value: object) -> object:
        words = tuple(self.meanings)
        if not isinstance(value, str):
            raise WrongError(f"is {kind_of(value)}, expected a text", f"one of {', '.join(words)}")
        if value not in words:
            raise WrongError(f"is {value[:80]!r}, which is not known", suggestion(value, words))
        return self.meanings[value]

    def schema(self) -> JsonObject:
        return {"enum": list(self.meanings)}


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a given form; ``what`` it is and the hint are for people."""

    pattern: str
    hint: str
    what: str

    def read(self, value: object) -> object:
        if not isinstance(value, str):
            raise WrongError(f"is {kind_of(value)}, expected {self.what} as a text", self.hint)
        if not re.fullmatch(self.pattern, value):
            raise WrongError(f"is {value[:80]!r}, which is not {self.what}", self.hint)
        return value

    def schema(self) -> JsonObject:
        return {"type": "string", "pattern": f"^{self.pattern}$"}


@dataclass(frozen=True, slots=True)
class Day:
    """A date: TOML's own, or a text in JSON."""

    def read(self, value: object) -> object:
        if type(value) is date:
            return value
        try:
            if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
                return date.fromisoformat(value)
        except ValueError:
            pass
        raise WrongError("is no date", "write it as 2025-05-14")

    def schema(self) -> JsonObject:
        return {"type": "string", "format": "date"}


@dataclass(frozen=True, slots=True)
class OrNull:
    """A value, or null for none."""

    item: Kind

    def read(self, value: object) -> object:
        return None if value is None else self.item.read(value)

    def schema(self) -> JsonObject:
        schema = self.item.schema()
        words = schema.get("enum")
        return {"enum": [*words, None]} if isinstance(words, list) else schema | {"type": [schema["type"], "null"]}


@dataclass(frozen=True, slots=True)
class Several:
    """An array of different items of one kind."""

    item: Kind
    maximum: int = 256

    def read(self, value: object) -> object:
        if not isinstance(value, list):
            raise WrongError(f"is {kind_of(value)}, expected an array", "")
        if len(value) > self.maximum:
            raise WrongError(f"has {len(value)} items, at most {self.maximum} are read", "")
        items: list[object] = []
        for position, raw in enumerate(value):
            try:
                item = self.item.read(raw)
            except WrongError as wrong:
                message, hint = wrong.args
                raise WrongError(f"[{position}] {message}", hint) from None
            if item in items:
                raise WrongError(f"[{position}] is {raw!r} once more", "")
            items.append(item)
        return tuple(items)

    def schema(self) -> JsonObject:
        return {"type": "array", "maxItems": self.maximum, "uniqueItems": True, "items": self.item.schema()}


Kind = Flag | Count | Word | Text | Day | OrNull | Several


def field_kind(field: Field[Any]) -> Kind:
    """What a field may hold, from its declared type and its bounds."""
    bounds, declared = field.metadata, str(field.type)
    enums: dict[str, type[Enum]] = {kind.__name__: kind for kind in (Architecture, RevocationMode, TopologyRule)}
    name = declared.removeprefix("tuple[").removesuffix(", ...]").removesuffix(" | None")
    kind: Kind
    if name in enums:
        kind = Word({item.value: item for item in enums[name]})
    elif name == "bool":
        kind = Flag()
    elif name == "int":
        kind = Count(bounds["maximum"])
    elif name == "date":
        kind = Day()
    elif "base" in bounds:
        # At most eight parts of at most eight digits: decimal for drivers, hexadecimal for VBIOS.
        digit = "[0-9A-Fa-f]" if bounds["base"] == VBIOS_VERSION else "[0-9]"
        hint = f'write it as "{VERSION_EXAMPLES[bounds["base"]]}"'
        kind = Text(rf"{digit}{{1,8}}(\.{digit}{{1,8}}){{0,7}}", hint, "a version")
    elif "size" in bounds:
        digits = 2 * bounds["size"]
        kind = Text(f"[0-9a-f]{{{digits}}}", f"write {digits} lower-case hexadecimal digits", f"{bounds['size']} bytes")
    elif "pattern" in bounds:
        kind = Text(bounds["pattern"], f"write a text like {bounds['pattern']}", bounds["pattern"])
    else:
        kind = Word({word: word for word in bounds["words"]})
    if declared.startswith("tuple"):
        return Several(kind)
    return OrNull(kind) if declared.endswith("None") else kind


def declared_fields(policy: type[Any]) -> dict[str, Field[Any]]:
    """The fields of a policy by name."""
    return {field.name: field for field in fields(policy)}


# --- the evidence policy ----------------------------------------------------------------------------------------------


FIELDS: Final = declared_fields(EvidencePolicy)


def load_evidence_policy(data: bytes, *, source: str) -> EvidencePolicy:
    """Read a policy, with the errors of ``load_document`` and ``read_fields``; ``source`` is what they call it."""
    document = load_document(data, source=source, kind="evidence")
    return EvidencePolicy(**read_fields(document, document.members, FIELDS, "an evidence policy"))  # type: ignore[arg-type]


def dump_evidence_policy(policy: EvidencePolicy, *, form: str = "toml") -> str:
    """The policy as a file, every field named; ``form`` is ``"toml"`` or ``"json"``."""
    values = {"format": "nvattest-evidence-policy", "version": _VERSION} | policy_to_json(policy)
    if form == "json":
        return dump_json(values) + "\n"
    # Texts of a valid policy are ASCII without control characters: JSON and TOML spell them alike.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)


def explain_evidence_policy(policy: EvidencePolicy) -> tuple[str, ...]:
    """What the policy demands, a line for each field; those that differ from the strict default are marked."""
    default, values = policy_to_json(EvidencePolicy()), policy_to_json(policy)
    return tuple(
        explained(field, values[field.name], default[field.name], weaker=field.name in policy.weakenings)
        for field in fields(policy)
    )


def explained(field: Field[Any], value: object, default: object, *, weaker: bool, table: str = "") -> str:
    """What one field of a policy demands, in a line: its value as JSON, the mark, and its meaning."""
    mark = ""
    if weaker:
        mark = "  WEAKER"
    elif value != default:
        mark = "  changed"
    shown = "not set" if value in (None, [], {}) else json.dumps(value)
    return f"{table}{field.name} = {shown}{mark}: {field.metadata['meaning']}"


def evidence_policy_schema() -> JsonObject:
    """The JSON Schema of such a file; ``schemas/evidence-policy-1.json`` is this."""
    return policy_schema(
        "evidence",
        "An evidence policy",
        "What nvattest demands of evidence. What is left out keeps its strict default.",
        field_schemas(FIELDS, policy_to_json(EvidencePolicy())),
    )
