"""An evidence policy as a file: TOML or JSON in, the typed policy of the appraisal out; and back.

The keys are the fields of ``nvattest.appraisal.inputs.EvidencePolicy``, and all here follows from their declaration;
a key that is left out keeps its strict default. ``format`` and ``version`` may be there, too.
``schemas/evidence-policy-1.json`` is the output of ``evidence_policy_schema``, for editors.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Final

from nvattest._documents import JsonObject, dump_json
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.appraisal.results import policy_to_json
from nvattest.policy.fields import declared_fields, field_schemas, load_document, read_fields, read_header

FORMAT: Final = "nvattest-evidence-policy"
VERSION: Final = 1

FIELDS: Final = declared_fields(EvidencePolicy)
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
    document = load_document(data, source=source)
    members = read_header(document, _HEADER)
    return EvidencePolicy(**read_fields(document, members, FIELDS, "an evidence policy"))  # type: ignore[arg-type]


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
            **field_schemas(FIELDS, default),
        },
    }
