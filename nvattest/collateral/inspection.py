"""What a bundle holds, without believing it: ids, versions, signers, and the first thing in it to expire."""

from __future__ import annotations

import hashlib

from nvattest._json import JsonObject
from nvattest._text import joined
from nvattest.appraisal.inputs import Collateral
from nvattest.errors import ParseError
from nvattest.model import format_time
from nvattest.pki.ocsp import parse_response
from nvattest.rim.document import parse_rim


def inspect_bundle(collateral: Collateral) -> JsonObject:
    """Facts about each RIM and each answer. What cannot be read is listed with its fault; nothing is verified here."""
    ends: list[tuple[str, str]] = []
    rims = []
    for name in sorted(collateral.rims):
        content = collateral.rims[name].content
        entry: JsonObject = {"id": name, "sha256": hashlib.sha256(content).hexdigest()}
        try:
            document = parse_rim(content)
        except ParseError as error:
            entry["fault"] = str(error)
        else:
            expires = min(certificate.not_after for certificate in document.certificates)
            entry |= {
                "version": document.version,
                "product": document.product,
                "edition": document.edition,
                "active": len(document.golden),
                "signer": document.certificates[0].subject,
                "expires": format_time(expires),
            }
            ends.append((format_time(expires), name))
        rims.append(entry)
    answers = []
    for answer in collateral.ocsp:
        entry = {"sha256": hashlib.sha256(answer.content).hexdigest()}
        try:
            response = parse_response(answer.content)
        except ParseError as error:
            entry["fault"] = str(error)
        else:
            entry |= {
                "serial": f"{response.serial:x}" if response.serial is not None else None,
                "status": response.status.value if response.status is not None else response.responder_status,
                "this_update": format_time(response.this_update) if response.this_update is not None else None,
                "next_update": format_time(response.next_update) if response.next_update is not None else None,
            }
            if response.next_update is not None:
                ends.append((format_time(response.next_update), f"OCSP answer for {entry['serial']}"))
        answers.append(entry)
    first = min(ends, default=None)
    return {
        "rims": rims,
        "ocsp": answers,
        "earliest_expiry": {"at": first[0], "of": first[1]} if first is not None else None,
    }


def render_inspection(facts: JsonObject) -> str:
    """The facts as lines for people."""
    rims, answers, first = facts["rims"], facts["ocsp"], facts["earliest_expiry"]
    assert isinstance(rims, list)  # noqa: S101 - the type of our own value
    assert isinstance(answers, list)  # noqa: S101
    lines = [f"{len(rims)} RIMs, {len(answers)} revocation answers"]
    for rim in rims:
        if "fault" in rim:
            lines.append(f"  {rim['id']}: NOT READABLE: {rim['fault']}")
        else:
            lines.append(
                f"  {rim['id']}: {rim['product']} {rim['edition']} {rim['version']}, {rim['active']} golden values, "
                f"signed by {rim['signer']}, signers until {rim['expires']}"
            )
    for answer in answers:
        if "fault" in answer:
            lines.append(f"  OCSP {answer['sha256'][:12]}: NOT READABLE: {answer['fault']}")
        else:
            lines.append(
                f"  OCSP {answer['serial']}: {answer['status']}, {answer['this_update']} to {answer['next_update']}"
            )
    if isinstance(first, dict):
        lines.append(f"  first to expire: {first['of']}, {first['at']}")
    return joined(lines)
