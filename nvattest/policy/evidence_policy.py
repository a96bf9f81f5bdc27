"""An evidence policy as a file: TOML or JSON in, the typed policy of the appraisal out; and back.

The keys are the fields of ``nvattest.appraisal.policy.EvidencePolicy``, and all here follows from their declaration;
a key that is left out keeps its strict default. ``format`` and ``version`` may be there, too.
``schemas/evidence-policy-1.json`` is the output of ``evidence_policy_schema``, for editors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from enum import Enum
from typing import Any, Final, Protocol

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
from nvattest.appraisal.policy import VBIOS_VERSION, VERSION_EXAMPLES, EvidencePolicy, RevocationMode, TopologyRule
from nvattest.appraisal.serialize import policy_to_json
from nvattest.errors import ParseError, PolicyError, ResultCode
from nvattest.model import Architecture

FORMAT: Final = "nvattest-evidence-policy"
VERSION: Final = 1
MAXIMUM: Final = 64 * 1024

FIELDS: Final = {field.name: field for field in fields(EvidencePolicy)}
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
    """What the policy demands, a line for each field; those that differ from the strict default are marked."""
    default, values = policy_to_json(EvidencePolicy()), policy_to_json(policy)
    lines = []
    for field in fields(policy):
        value = values[field.name]
        mark = "" if value == default[field.name] else "  changed"
        mark = "  WEAKER" if field.name in policy.weakenings else mark
        meaning = field.metadata["meaning"]
        shown = "not set" if value is None or value == [] else json.dumps(value)
        lines.append(f"{field.name} = {shown}{mark}: {meaning}")
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
                name: {"description": field.metadata["meaning"], "default": default[name], **_kind(field).schema()}
                for name, field in FIELDS.items()
            },
        },
    }


def _policy(document: JsonObject, source: str, text: str, find: Callable[[str], int | None]) -> EvidencePolicy:
    def fail(key: str, message: str, hint: str, code: str = "policy-value") -> PolicyError:
        return PolicyError(f"{located(source, text, find(key))}: {key[:80]} {message}", code=code, hint=hint)

    values: dict[str, object] = {}
    for key, value in document.items():
        if key in _HEADER:
            if type(value) is not type(_HEADER[key]) or value != _HEADER[key]:
                shown = repr(value)[:80] if isinstance(value, str | int) else kind_of(value)
                raise fail(key, f"is {shown}, expected {_HEADER[key]!r}", "this program reads version 1")
        elif key in FIELDS:
            try:
                values[key] = _kind(FIELDS[key]).read(value)
            except _WrongError as wrong:
                raise fail(key, wrong.message, wrong.hint) from None
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
        raise _syntax(f"the policy is {kind_of(document)}, expected an object", source)
    return document


def _syntax(
    message: str, source: str, *, offset: int | None = None, place: tuple[int, int] | None = None, code: str = "json"
) -> ParseError:
    where = "" if place is None else f"line {place[0]}, column {place[1]}: "
    return ParseError(
        where + message, source=source, offset=offset, code=code, result_code=ResultCode.POLICY_EVALUATION_ERROR
    )


# --- what a field may hold in a file ----------------------------------------------------------------------------------


class _WrongError(Exception):
    """What is wrong with a value; ``_policy`` adds the key and its place."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Kind(Protocol):
    """What a field may hold."""

    def read(self, value: object) -> object:
        """The value of a file as that of the policy; ``_WrongError`` where it is none."""

    def schema(self) -> JsonObject:
        """The same as JSON Schema."""


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: object) -> object:
        if type(value) is not bool:
            raise _WrongError(f"is {kind_of(value)}, expected true or false")
        return value

    def schema(self) -> JsonObject:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from 0."""

    maximum: int

    def read(self, value: object) -> object:
        if type(value) is not int:
            raise _WrongError(f"is {kind_of(value)}, expected a whole number")
        if not 0 <= value <= self.maximum:
            raise _WrongError(f"is {value}, expected 0 to {self.maximum}")
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
            raise _WrongError(f"is {kind_of(value)}, expected a text", f"one of {', '.join(words)}")
        if value not in words:
            raise _WrongError(f"is {value[:80]!r}, which is not known", suggestion(value, words))
        return self.meanings[value]

    def schema(self) -> JsonObject:
        return {"enum": list(self.meanings)}


@dataclass(frozen=True, slots=True)
class Version:
    """A dotted version: decimal for drivers, hexadecimal for VBIOS."""

    base: int

    @property
    def pattern(self) -> str:
        """At most eight parts of at most eight digits."""
        digit = "[0-9A-Fa-f]" if self.base == VBIOS_VERSION else "[0-9]"
        return rf"^{digit}{{1,8}}(\.{digit}{{1,8}}){{0,7}}$"

    def read(self, value: object) -> object:
        hint = f'write it as "{VERSION_EXAMPLES[self.base]}"'
        if not isinstance(value, str):
            raise _WrongError(f"is {kind_of(value)}, expected a version as a text", hint)
        if not re.fullmatch(self.pattern[1:-1], value):
            raise _WrongError(f"is {value[:80]!r}, which is not a version", hint)
        return value

    def schema(self) -> JsonObject:
        return {"type": "string", "pattern": self.pattern}


@dataclass(frozen=True, slots=True)
class OrNull:
    """A value, or null for none."""

    item: Kind

    def read(self, value: object) -> object:
        return None if value is None else self.item.read(value)

    def schema(self) -> JsonObject:
        schema = self.item.schema()
        return schema | {"type": [schema["type"], "null"]}


@dataclass(frozen=True, slots=True)
class Several:
    """An array of different items of one kind."""

    item: Kind
    maximum: int = 256

    def read(self, value: object) -> object:
        if not isinstance(value, list):
            raise _WrongError(f"is {kind_of(value)}, expected an array")
        if len(value) > self.maximum:
            raise _WrongError(f"has {len(value)} items, at most {self.maximum} are read")
        items: list[object] = []
        for position, raw in enumerate(value):
            try:
                item = self.item.read(raw)
            except _WrongError as wrong:
                raise _WrongError(f"[{position}] {wrong.message}", wrong.hint) from None
            if item in items:
                raise _WrongError(f"[{position}] is {raw!r} once more")
            items.append(item)
        return tuple(items)

    def schema(self) -> JsonObject:
        return {"type": "array", "maxItems": self.maximum, "uniqueItems": True, "items": self.item.schema()}


def _kind(field: Field[Any]) -> Kind:
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
    else:
        kind = Version(bounds["base"]) if "base" in bounds else Word({word: word for word in bounds["words"]})
    if declared.startswith("tuple"):
        return Several(kind)
    return OrNull(kind) if declared.endswith("None") else kind
