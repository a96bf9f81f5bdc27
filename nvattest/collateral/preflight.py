"""Before a rollout: which RIMs exist, who signed them until when, and which revocation answers can be had."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from nvattest._documents import JsonObject
from nvattest._registry import CPU_MAKERS
from nvattest._text import joined
from nvattest.appraisal.inputs import Collateral, CpuAnswer
from nvattest.appraisal.revocation import find_revocation
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.collateral.gather import Needs, Question, certificates_to_ask
from nvattest.errors import ParseError, ResultCode
from nvattest.model import SIMULATED, VerificationTime, format_time
from nvattest.pki.anchors import NVIDIA_ANCHORS
from nvattest.pki.chain import ChainProfile, ValidatedChain
from nvattest.pki.ocsp import RevocationStatus

if TYPE_CHECKING:
    from nvattest.pki.anchors import CpuAnchors


def preflight(
    needs: Needs,
    collateral: Collateral,
    verifier: Verifier,
    at: VerificationTime,
    *,
    cpu_anchors: CpuAnchors | None = None,
) -> JsonObject:
    """Facts about each RIM, each device chain and CPU collateral; ``ready``: an appraisal would find all of it good.

    Unlike the appraisal of a device this compares nothing with a report. ``result_code`` is the first problem's.
    """
    report = _Report(collateral, verifier)
    rims = [report.rim(rim_id, at) for rim_id in needs.rim_ids]
    chains = [report.chain(chain, at) for chain in needs.chains]
    for key, missing in needs.refused.items():
        report.problem(missing.code, missing.message, missing.hint, key)
    if (missing_cpu := collateral.unavailable.get("cpu")) is not None:
        report.problem(missing_cpu.code, missing_cpu.message, missing_cpu.hint, "cpu")
    cpu = [report.cpu(answer, at.device, cpu_anchors) for answer in collateral.cpu]
    if not needs.rim_ids and not needs.chains and not cpu and missing_cpu is None:
        report.problem(ResultCode.BAD_ARGUMENT, "there is nothing to look for", "", "")
    first = report.problems[0] if report.problems else None
    return {
        "ready": first is None,
        "result_code": int(first["result_code"]) if first is not None else 0,
        "rims": rims,
        "devices": chains,
        **({"cpu": cpu} if cpu else {}),
        "problems": report.problems,
        "first_to_expire": format_time(min(report.ends)) if report.ends else None,
        "at": {"device": format_time(at.device), "rim": format_time(at.rim)},
        "anchors": verifier.anchors.label,
        "simulated": verifier.anchors.simulated,
    }


class _Report:
    def __init__(self, collateral: Collateral, verifier: Verifier) -> None:
        self._collateral = collateral
        self._verifier = verifier
        self.problems: list[dict[str, int | str]] = []
        self.ends: list[datetime] = []

    def problem(self, code: ResultCode, message: str, hint: str, of: str) -> str:
        self.problems.append({"result_code": int(code), "of": of, "message": message, "hint": hint})
        return message

    def cpu(self, answer: CpuAnswer, at: datetime, anchors: CpuAnchors | None) -> JsonObject:
        from nvattest.collateral.cpu import issued_cpu
        from nvattest.pki.anchors import CPU_ANCHORS

        anchors = anchors if anchors is not None else CPU_ANCHORS
        issued = issued_cpu(answer, anchors)
        until = issued.until
        facts: JsonObject = {
            "about": issued.about or f"CPU collateral {hashlib.sha256(answer.content).hexdigest()[:12]}",
            "source": answer.source.value,
            "until": format_time(until) if until is not None else None,
            "anchors": anchors.label,
            "simulated": anchors.simulated,
        }
        if problem := issued.problem or issued.current(at):
            code = ResultCode.CERT_CHAIN_VERIFICATION_FAILURE
            facts["problem"] = self.problem(code, f"{facts['about']}: {problem}", "", "cpu")
        elif until is not None:
            self.ends.append(until)
        return facts

    def rim(self, rim_id: str, at: VerificationTime) -> JsonObject:
        answer = self._collateral.rims.get(rim_id)
        facts: JsonObject = {"id": rim_id, "available": answer is not None}
        if answer is None:
            missing = self._collateral.unavailable.get(f"rim:{rim_id}")
            code = missing.code if missing is not None else ResultCode.RIM_NOT_FOUND
            message = missing.message if missing is not None else f"{rim_id} is not at hand"
            facts["asked"] = missing is None or missing.asked
            facts["problem"] = self.problem(code, message, missing.hint if missing is not None else "", rim_id)
            return facts
        facts |= {"source": answer.source.value, "sha256": hashlib.sha256(answer.content).hexdigest()}
        try:
            document = memory_of(self._verifier).parse_rim(answer.content)
        except ParseError as error:
            said = memory_of(self._verifier).explain_rim(error, answer.content)
            facts["problem"] = self.problem(error.result_code, said, error.hint, rim_id)
            return facts
        verification = memory_of(self._verifier).verify_rim(document, self._verifier.anchors, at.rim)
        chain = verification.chain
        facts |= {
            "version": document.version,
            "product": document.product,
            "edition": document.edition,
            "signed": verification.verified is not None,
            "signers_end": format_time(chain.earliest_not_after) if chain.certificates else None,
        }
        if verification.verified is None:
            facts["problem"] = self.problem(ResultCode.RIM_INVALID_SIGNATURE, verification.detail, "", rim_id)
            return facts
        self.ends.append(chain.earliest_not_after)
        if not chain.in_validity:
            message = "; ".join(finding.message for finding in chain.validity_findings)
            facts["problem"] = self.problem(
                ResultCode.CERT_CHAIN_VERIFICATION_FAILURE, f"{rim_id}: {message}", "ask NVIDIA for a new issue", rim_id
            )
        facts["revocation"] = self._revocation(chain, ChainProfile.RIM, at.rim, rim_id)
        return facts

    def chain(self, chain: ValidatedChain, at: VerificationTime) -> JsonObject:
        name = chain.leaf.label
        return {
            "certificate": name,
            "serial": f"{chain.leaf.serial:x}",
            "revocation": self._revocation(chain, ChainProfile.DEVICE, at.device, name),
        }

    def _revocation(self, chain: ValidatedChain, profile: ChainProfile, at: datetime, of: str) -> Sequence[JsonObject]:
        return [self._question(question, at, of) for question in certificates_to_ask([(chain, profile)])]

    def _question(self, question: Question, at: datetime, of: str) -> JsonObject:
        found = find_revocation(question.certificate, question.issuer, self._collateral, at, memory_of(self._verifier))
        revocation = found.revocation
        asked = True
        if revocation.status is not RevocationStatus.GOOD:
            missing = self._collateral.unavailable.get(question.key)
            if found.source is None and missing is not None:
                asked = missing.asked
                self.problem(missing.code, missing.message, missing.hint, of)
            else:
                message = f"{question.certificate.label}: {revocation.detail}"
                self.problem(ResultCode.OCSP_STATUS_NOT_GOOD, message, "", of)
        elif revocation.next_update is not None:
            self.ends.append(revocation.next_update)
        return {
            "certificate": question.certificate.label,
            "status": revocation.status.value,
            "asked": asked,
            "detail": revocation.detail,
            "source": found.source.value if found.source is not None else None,
            "next_update": format_time(revocation.next_update) if revocation.next_update is not None else None,
        }


def render_preflight(facts: JsonObject) -> str:
    """The facts as lines for people."""
    lines = []
    for rim in _items(facts["rims"]):
        if not rim["available"]:
            lines.append(f"  MISSING {rim['id']}" if rim["asked"] else f"  not asked for {rim['id']}")
        elif "version" not in rim:
            lines.append(f"  BAD     {rim['id']}: not readable")
        else:
            lines.append(
                f"  {'ok     ' if 'problem' not in rim else 'BAD    '} {rim['id']}: {rim['product']} {rim['edition']} "
                f"{rim['version']} from the {rim['source']}, signers until {rim['signers_end']}"
            )
        lines += _revocation_lines(rim)
    for device in _items(facts["devices"]):
        lines.append(f"  device  {device['certificate']} {device['serial']}")
        lines += _revocation_lines(device)
    for item in _items(facts.get("cpu", [])):
        mark = "ok     " if "problem" not in item else "BAD    "
        lines.append(f"  {mark} {item['about']}, from the {item['source']}, good until {item['until']}")
        if item["anchors"] != CPU_MAKERS:
            mark = f"   {SIMULATED}" * bool(item["simulated"])
            lines.append(f"          roots: {item['anchors']}, not the makers'{mark}")
    for problem in _items(facts["problems"]):
        lines.append(f"  problem {problem['result_code']}: {problem['message']}")
        if problem["hint"]:
            lines.append(f"          next: {problem['hint']}")
    if facts["first_to_expire"]:
        lines.append(f"  first to expire: {facts['first_to_expire']}")
    lines += foreign_anchors(facts["anchors"], simulated=facts["simulated"] is True)
    at = facts["at"]
    lines.append(f"  judged at {' / '.join(dict.fromkeys(at.values())) if isinstance(at, dict) else 'an unknown time'}")
    lines.append("Ready: " + ("yes" if facts["ready"] else "NO"))
    return joined(lines)


def foreign_anchors(label: object, *, simulated: bool) -> list[str]:
    """A line that names other trust anchors than NVIDIA's, or none."""
    if label == NVIDIA_ANCHORS.label:
        return []
    return [f"  trust anchors: {label}, not NVIDIA's" + f"   {SIMULATED}" * simulated]


def _revocation_lines(of: JsonObject) -> list[str]:
    return [
        f"            {item['certificate']}: {item['status'] if item['asked'] else 'not asked'}"
        + (f" until {item['next_update']}" if item["next_update"] else "")
        for item in _items(of.get("revocation", []))
    ]


def _items(value: object) -> list[JsonObject]:
    return value if isinstance(value, list) else []
