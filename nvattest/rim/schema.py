"""The published profile, ``schemas/rim-profile-1.xsd``, asked where and why a document departs from it.

``parse_rim`` does not use it and is faster. The schema explains to people what ``parse_rim`` refused.
"""

from __future__ import annotations

from nvattest._schemas import schema_path
from nvattest._text import joined
from nvattest.errors import ParseError
from nvattest.rim.xml import ROOT, read_xml

__all__ = ["PROFILE", "explain_schema_error", "explained"]

PROFILE = "rim-profile-1.xsd"
_MOST = 8
# These errors come before there are elements and have an offset.
_OF_THE_GATE = frozenset(
    ("rim-size", "rim-encoding", "rim-dtd", "rim-comment", "rim-cdata", "rim-processing-instruction", "rim-entity",
     "rim-xml-attribute", "rim-limits", "rim-xml")
)  # fmt: skip


def explained(error: ParseError, data: bytes) -> str:
    """The error of ``parse_rim`` and the first element, by path and line, that departs from the profile.

    Only this imports ``xmlschema``, and only for a document that was refused.
    """
    if error.code in _OF_THE_GATE:
        return str(error)
    first = explain_schema_error(data).partition("\n")[0]
    return f"{error}; {first}" if first else str(error)


def explain_schema_error(data: bytes) -> str:
    """Where and why this document departs from the XSD profile, one fault a line; empty when it does not.

    The bytes go through the gate and the hardened parser of ``parse_rim`` first; their refusal is returned as it is.
    """
    try:
        root = read_xml(data)
    except ParseError as refusal:
        return str(refusal)
    if root.tag != ROOT:
        # A schema would also accept its other global elements as roots.
        return f"the root is {str(root.tag)[:160]}; expected {ROOT}"
    import xmlschema

    schema = xmlschema.XMLSchema(schema_path(PROFILE), allow="local")
    lines: list[str] = []
    try:
        # Without location hints nothing is fetched.
        for error in schema.iter_errors(root, use_location_hints=False):
            if len(lines) == _MOST:
                lines.append("and more")
                break
            where = str(error.path or "/")
            line = getattr(error.elem, "sourceline", None)
            place = where if line is None else f"{where} (line {line})"
            lines.append(f"{place}: {str(error.reason or error.message)[:300]}")
    except xmlschema.XMLSchemaException as error:
        # The library gives up where xsi:type names a type that does not exist.
        lines.append(f"/: {str(error)[:300]}")
    return joined(lines)
