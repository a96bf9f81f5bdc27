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
from typing import Any, Final

from nvattest._documents import (
    JsonObject,
    dump_json,
    file_text,
    json_positions,
    kind_of,
    line_and_column,
    load_json,
    load_toml,
    toml_position,
)
from nvattest._text import suggestion
from nvattest.appraisal.policy import VBIOS_VERSION, VERSION_EXAMPLES, EvidencePolicy, RevocationMode, TopologyRule
from nvattest.appraisal.serialize import policy_to_json
from nvattest.errors import ParseError, PolicyError, ResultCode
from nvattest.model import Architecture

# Says what is wrong with a value; the caller adds the key and its place.
Complain = Callable[[str, str], Exception]

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
        offset = find(key)
        where = source if offset is None else "{}, line {}, column {}".format(source, *line_and_column(text, offset))
        return PolicyError(f"{where}: {key[:80]} {message}", code=code, hint=hint)

    values: dict[str, object] = {}
    for key, value in document.items():
        if key in _HEADER:
            if type(value) is not type(_HEADER[key]) or value != _HEADER[key]:
                shown = repr(value)[:80] if isinstance(value, str | int) else kind_of(value)
                raise fail(key, f"is {shown}, expected {_HEADER[key]!r}", "this program reads version 1")
        elif key in FIELDS:
            values[key] = _kind(FIELDS[key]).read(
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


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if type(value) is not bool:
            raise complain(f"is {kind_of(value)}, expected true or false", "")
        return value

    def schema(self) -> JsonObject:
        """The same as JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from 0; ``optional`` also takes null, for any."""

    maximum: int
    optional: bool = False

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if value is None and self.optional:
            return None
        if type(value) is not int:
            raise complain(f"is {kind_of(value)}, expected a whole number", "")
        if not 0 <= value <= self.maximum:
            raise complain(f"is {value}, expected 0 to {self.maximum}", "")
        return value

    def schema(self) -> JsonObject:
        """The same as JSON Schema."""
        kind: object = ["integer", "null"] if self.optional else "integer"
        return {"type": kind, "minimum": 0, "maximum": self.maximum}


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a list; ``values`` are the words' meanings."""

    words: tuple[str, ...]
    values: tuple[object, ...]

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if not isinstance(value, str):
            raise complain(f"is {kind_of(value)}, expected a text", f"one of {', '.join(self.words)}")
        if value not in self.words:
            raise complain(f"is {value[:80]!r}, which is not known", suggestion(value, self.words))
        return self.values[self.words.index(value)]

    def schema(self) -> JsonObject:
        """The same as JSON Schema."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Version:
    """A dotted version; decimal for drivers, hexadecimal for VBIOS. ``optional`` also takes null, for none."""

    base: int
    optional: bool = False

    @property
    def pattern(self) -> str:
        """Of at most eight parts of at most eight digits."""
        digit = "[0-9A-Fa-f]" if self.base == VBIOS_VERSION else "[0-9]"
        return rf"^{digit}{{1,8}}(\.{digit}{{1,8}}){{0,7}}$"

    def read(self, value: object, complain: Complain) -> object:
        """The value, checked."""
        if value is None and self.optional:
            return None
        example = VERSION_EXAMPLES[self.base]
        if not isinstance(value, str):
            raise complain(f"is {kind_of(value)}, expected a version as a text", f'write it as "{example}"')
        if not re.fullmatch(self.pattern[1:-1], value):
            raise complain(f"is {value[:80]!r}, which is not a version", f'write it as "{example}"')
        return value

    def schema(self) -> JsonObject:
        """The same as JSON Schema."""
        kind: object = ["string", "null"] if self.optional else "string"
        return {"type": kind, "pattern": self.pattern}


@dataclass(frozen=True, slots=True)
class Several:
    """An array of different items of one kind."""

    item: Word | Version
    maximum: int = 256

    def read(self, value: object, complain: Complain) -> object:
        """The values, checked, as a tuple."""
        if not isinstance(value, list):
            raise complain(f"is {kind_of(value)}, expected an array", "")
        if len(value) > self.maximum:
            raise complain(f"has {len(value)} items, at most {self.maximum} are read", "")
        items: list[object] = []
        for position, raw in enumerate(value):
            item = self.item.read(raw, lambda message, hint, at=position: complain(f"[{at}] {message}", hint))  # type: ignore[misc]
            if item in items:
                raise complain(f"[{position}] is {raw!r} once more", "")
            items.append(item)
        return tuple(items)

    def schema(self) -> JsonObject:
        """The same as JSON Schema."""
        return {"type": "array", "maxItems": self.maximum, "uniqueItems": True, "items": self.item.schema()}


Kind = Flag | Count | Word | Version | Several


def _enum(kind: type[Enum]) -> Word:
    return Word(tuple(item.value for item in kind), tuple(kind))


def _texts(bounds: Mapping[str, Any]) -> Kind:
    return Several(Version(bounds["base"]) if "base" in bounds else Word(bounds["words"], bounds["words"]))


# By the type that a field is declared with.
_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Kind]]] = {
    "bool": lambda _: Flag(),
    "int": lambda bounds: Count(bounds["maximum"]),
    "int | None": lambda bounds: Count(bounds["maximum"], optional=True),
    "str | None": lambda bounds: Version(bounds["base"], optional=True),
    "tuple[str, ...]": _texts,
    "tuple[Architecture, ...]": lambda _: Several(_enum(Architecture)),
    "RevocationMode": lambda _: _enum(RevocationMode),
    "TopologyRule": lambda _: _enum(TopologyRule),
}


def _kind(field: Field[Any]) -> Kind:
    return _KINDS[str(field.type)](field.metadata)
