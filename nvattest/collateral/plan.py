"""The plan of a gathering: exactly which RIMs and revocation answers the evidence needs, none of them twice."""

from __future__ import annotations

from collections.abc import Iterable

from nvattest.errors import ParseError
from nvattest.evidence import Evidence
from nvattest.rim.ids import rim_ids
from nvattest.spdm.report import parse_report


def rim_ids_of(evidence: Iterable[Evidence]) -> tuple[str, ...]:
    """The ids of all RIMs that this evidence needs, each once. A report that cannot be read needs none."""
    found: dict[str, None] = {}
    for item in evidence:
        try:
            report = parse_report(item.report, item.kind)
            found |= dict.fromkeys(rim_ids(report, item.architecture).values())
        except ParseError:
            # The appraisal will say what is wrong with it.
            continue
    return tuple(found)
