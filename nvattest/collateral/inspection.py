"""Facts about collateral before it is used: what a bundle holds, and whether what evidence needs can be had.

An inspection says of each entry of a bundle which state it has: ids, versions, signers, and what expires first. A
preflight, before a rollout, says which RIMs exist, who signed them until when, and which revocation answers can be had.
Every use of collateral verifies it again; this says beforehand what it finds. The states of an entry:

================  ==================================================================================================
``verified``      the signature, the path to a trust anchor and the validity are good at the instant of the inspection
``expired``       they were good, and the signers' validity or the answer's window has ended
``not verified``  anything else; ``reason`` says what
================  ==================================================================================================
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest._registry import CPU_MAKERS
from nvattest._text import joined
from nvattest.appraisal.inputs import Collateral, CpuAnswer, OcspAnswer, RimAnswer, Unavailable
from nvattest.appraisal.revocation import MAXIMUM_ANSWERS
from nvattest.appraisal.verifier import Verifier, memory_of
from nvattest.collateral.gather import Needs, Question, certificates_to_ask
from nvattest.errors import ParseError, ResultCode
from nvattest.model import SIMULATED, VerificationTime, counted, format_time
from nvattest.pki.anchors import CPU_ANCHORS, NVIDIA_ANCHORS, CpuAnchors
from nvattest.pki.chain import ChainProfile, ValidatedChain
from nvattest.pki.ocsp import OcspResponse, Revocation, RevocationStatus, check_revocation
from nvattest.rim.ids import fits_rim_id

if TYPE_CHECKING:
    from nvattest.tee.collateral import Issued

VERIFIED: Final = "verified"
EXPIRED: Final = "expired"
NOT_VERIFIED: Final = "not verified"
_OF_A_DEVICE: Final = "no RIM here has the certificate that it is about; give the evidence of the devices to check it"
# Of more answers people see the sums.
_LISTED: Final = 64
# What a responder signs about a certificate; every other status says why the answer cannot be used.
_SIGNED: Final = (RevocationStatus.GOOD, RevocationStatus.REVOKED, RevocationStatus.ON_HOLD, RevocationStatus.UNKNOWN)


class Inspection(NamedTuple):
    """The facts as JSON; the entries that no verification can use, each as a name and a reason; and the usable rest."""

    facts: JsonObject
    bad: tuple[tuple[str, str], ...]
    usable: Collateral


def inspect_bundle(
    collateral: Collateral,
    verifier: Verifier,
    at: VerificationTime,
    *,
    chains: Iterable[ValidatedChain] = (),
    cpu_anchors: CpuAnchors | None = None,
) -> Inspection:
    """Verify each RIM, each answer and all CPU collateral at the instant ``at``, the last by the makers' own roots.

    An answer can be verified if its certificate is known: from the RIMs, or from ``chains``, those of devices. Without
    them the answers about devices are neither verified nor bad.
    """
    inspector = _Inspector(verifier, at, chains, cpu_anchors or CPU_ANCHORS)
    usable = inspector.part(collateral)
    return Inspection(inspector.facts(), tuple(inspector.bad), usable)


def inspect_parts(
    parts: Iterable[Collateral],
    verifier: Verifier,
    at: VerificationTime,
    *,
    chains: Iterable[ValidatedChain] = (),
    cpu_anchors: CpuAnchors | None = None,
    use: Callable[[Collateral, Collection[bytes]], None] = lambda *_: None,
) -> tuple[JsonObject, tuple[tuple[str, str], ...]]:
    """The same for a bundle in parts, the RIMs first, of which one is in memory at a time: the facts and the bad.

    ``use`` is called with what of each part can be used, and with those answers in it that count if they are genuine,
    which shows only when their device is verified: a revocation, or what is current.
    """
    inspector = _Inspector(verifier, at, chains, cpu_anchors or CPU_ANCHORS)
    for part in parts:
        use(inspector.part(part), inspector.open)
    return inspector.facts(), tuple(inspector.bad)


class _Inspector:
    def __init__(
        self, verifier: Verifier, at: VerificationTime, chains: Iterable[ValidatedChain], cpu_anchors: CpuAnchors
    ) -> None:
        self._memory = memory_of(verifier)
        self._anchors = verifier.anchors
        self._at = at
        self._cpu_anchors = cpu_anchors
        self._questions: dict[int, list[Question]] = {}
        self._rims: list[JsonObject] = []
        self._answers: list[JsonObject] = []
        self._cpu: list[JsonObject] = []
        self._ends: list[tuple[datetime, str]] = []
        self.bad: list[tuple[str, str]] = []
        self.learn(chains, ChainProfile.DEVICE)

    def part(self, part: Collateral) -> Collateral:
        """What of this part can be used; ``open`` are the answers in it that only their device verifies."""
        self.open: set[bytes] = set()
        self._refused: set[str | bytes] = set()
        self._surplus = _surplus(part.ocsp, self._memory.parse_answer)
        self._rims += [self.rim(part.rims[name]) for name in sorted(part.rims)]
        self._answers += [self.answer(answer) for answer in part.ocsp]
        self._cpu += [self.cpu(answer) for answer in part.cpu]
        return Collateral(
            rims={name: rim for name, rim in part.rims.items() if name not in self._refused},
            ocsp=tuple(answer for answer in part.ocsp if answer.content not in self._refused),
            cpu=tuple(answer for answer in part.cpu if answer.content not in self._refused),
        )

    def facts(self) -> JsonObject:
        first = min(self._ends, default=None)
        return {
            "rims": self._rims,
            "ocsp": self._answers,
            **({"cpu": self._cpu} if self._cpu else {}),
            "at": str(self._at),
            "anchors": self._anchors.label,
            "simulated": self._anchors.simulated,
            "earliest_expiry": {"at": format_time(first[0]), "of": first[1]} if first is not None else None,
        }

    def learn(self, chains: Iterable[ValidatedChain], profile: ChainProfile) -> None:
        for question in certificates_to_ask(chains, profile):
            self._questions.setdefault(question.certificate.serial, []).append(question)

    def rim(self, answer: RimAnswer) -> JsonObject:
        entry: JsonObject = {"id": answer.id, "sha256": hashlib.sha256(answer.content).hexdigest()}
        try:
            document = self._memory.parse_rim(answer.content)
        except ParseError as error:
            return self._refuse(entry, answer.id, answer, self._memory.explain_rim(error, answer.content))
        verification = self._memory.verify_rim(document, self._anchors, self._at.rim)
        chain = verification.chain
        entry |= {
            "version": document.version,
            "product": document.product,
            "edition": document.edition,
            "active": len(document.golden),
            "signer": document.certificates[0].subject,
            "expires": format_time(chain.earliest_not_after),
        }
        if verification.verified is None:
            return self._refuse(entry, answer.id, answer, verification.detail)
        if not fits_rim_id(document, answer.id):
            said = f"it is the RIM of {document.product} {document.edition} {document.version}, which its id is not"
            return self._refuse(entry, answer.id, answer, said)
        self.learn([chain], ChainProfile.RIM)
        if any(finding.rule != "expired" for finding in chain.validity_findings):
            return self._refuse(entry, answer.id, answer, _validity(chain))
        return self._keep(entry, answer.id, chain.earliest_not_after, ended=not chain.in_validity)

    def answer(self, answer: OcspAnswer) -> JsonObject:
        entry: JsonObject = {"sha256": hashlib.sha256(answer.content).hexdigest()}
        try:
            response = self._memory.parse_answer(answer.content)
        except ParseError as error:
            return self._refuse(entry, f"OCSP answer {entry['sha256']}"[:24], answer, str(error))
        serial, end = response.serial, response.next_update
        entry |= {
            "serial": f"{serial:x}" if serial is not None else None,
            "status": response.status.value if response.status is not None else response.responder_status,
            "this_update": _time(response.this_update),
            "next_update": _time(end),
        }
        name = f"OCSP answer for {entry['serial']}"
        if answer.content in self._surplus:
            said = (
                f"{self._surplus[answer.content]} answers are about this one certificate, at most {MAXIMUM_ANSWERS} "
                "are read; this is one of the oldest"
            )
            return self._refuse(entry, name, answer, said)
        questions = self._questions.get(serial, []) if serial is not None else []
        if not questions and response.successful:
            # Not bad: which device it is about shows only when that device is verified.
            if response.status is RevocationStatus.REVOKED or end is None or end >= self._at.device:
                self.open.add(answer.content)
            return self._keep(entry, name, end, ended=False) | {"state": NOT_VERIFIED, "reason": _OF_A_DEVICE}
        revocation, ended = self._judged(response, questions)
        if ended is None:
            return self._refuse(entry, name, answer, revocation.detail if revocation else "no answer")
        return self._keep(entry | {"certificate": questions[0].certificate.label}, name, end, ended=ended)

    def cpu(self, answer: CpuAnswer) -> JsonObject:
        entry: JsonObject = {"sha256": hashlib.sha256(answer.content).hexdigest()}
        issued, facts = _cpu_facts(answer, self._cpu_anchors)
        name, until, at = str(facts["about"]), issued.until, self._at.device
        if issued.problem:
            return self._refuse(entry, name, answer, issued.problem)
        not_current = issued.current(at)
        if not_current and (until is None or until >= at):
            return self._refuse(entry | facts, name, answer, not_current)
        return self._keep(entry | facts, name, until, ended=bool(not_current))

    def _judged(self, response: OcspResponse, questions: list[Question]) -> tuple[Revocation | None, bool | None]:
        """How the answer is judged, and whether it has ended, or None where it is bad."""
        judged = None
        for question in questions:
            at = question.instant(self._at)
            judged = self._check(response, question, at)
            if judged.status in _SIGNED and judged.in_window:
                return judged, False
            # Its responder may have ended with it: what counts is whether it was good while it was current.
            ended, began, signed = response.next_update, response.this_update, response.produced_at
            if ended is not None and began is not None and signed is not None and ended < at:
                then = self._check(response, question, max(began, signed))
                if then.status in _SIGNED:
                    return then, True
        return judged, None

    def _check(self, response: OcspResponse, question: Question, at: datetime) -> Revocation:
        return check_revocation(
            response, certificate=question.certificate, issuer=question.issuer, at=at, nonce=None,
            verifier=self._memory.ecdsa,
        )  # fmt: skip

    def _keep(self, entry: JsonObject, name: str, end: datetime | None, *, ended: bool) -> JsonObject:
        if end is not None:
            self._ends.append((end, name))
        return entry | {"state": EXPIRED if ended else VERIFIED}

    def _refuse(self, entry: JsonObject, name: str, of: RimAnswer | OcspAnswer | CpuAnswer, reason: str) -> JsonObject:
        self.bad.append((f"{name} ({of.origin})" if of.origin else name, reason))
        self._refused.add(of.id if isinstance(of, RimAnswer) else of.content)
        return entry | {"state": NOT_VERIFIED, "reason": reason}


def _cpu_facts(answer: CpuAnswer, anchors: CpuAnchors) -> tuple[Issued, JsonObject]:
    from nvattest.collateral.cpu import issued_cpu

    issued = issued_cpu(answer, anchors)
    return issued, {
        "about": issued.about or f"CPU collateral {hashlib.sha256(answer.content).hexdigest()[:12]}",
        "until": _time(issued.until),
        "anchors": anchors.label,
        "simulated": anchors.simulated,
    }


def _validity(chain: ValidatedChain) -> str:
    return "; ".join(finding.message for finding in chain.validity_findings)


def _time(instant: datetime | None) -> str | None:
    return None if instant is None else format_time(instant)


def weight(response: OcspResponse) -> tuple[bool, float]:
    """What a statement counts among others about one certificate: a revocation first, then the newest."""
    made = response.this_update.timestamp() if response.this_update is not None else 0.0
    return response.status is RevocationStatus.REVOKED, made


def _surplus(answers: Iterable[OcspAnswer], parse: Callable[[bytes], OcspResponse]) -> dict[bytes, int]:
    """Answers beyond the number of which an appraisal refuses to read any, with how many there are.

    A revocation is never among them, and neither is the newest statement, which counts.
    """
    about: dict[int, list[tuple[bool, float, bytes]]] = {}
    for answer in answers:
        try:
            response = parse(answer.content)
        except ParseError:
            continue
        if response.serial is not None:
            about.setdefault(response.serial, []).append((*weight(response), answer.content))
    return {
        content: len(found)
        for found in about.values()
        for revoked, _, content in sorted(found, reverse=True)[MAXIMUM_ANSWERS:]
        if not revoked
    }


# --- a bundle for people ----------------------------------------------------------------------------------------------


def render_inspection(facts: Mapping[str, Any]) -> str:
    rims, answers, cpu, first = facts["rims"], facts["ocsp"], facts.get("cpu", []), facts["earliest_expiry"]
    mark = f"   {SIMULATED}" if facts["simulated"] is True else ""
    files = f", {counted(len(cpu), 'file')} of CPU collateral" if cpu else ""
    lines = [
        f"{counted(len(rims), 'RIM')}, {counted(len(answers), 'revocation answer')}{files}",
        f"  checked at {facts['at']}, trust anchors: {facts['anchors']}{mark}",
    ]
    for rim in rims:
        line = f"  {rim['id']}: {_state(rim)}"
        if rim["state"] != NOT_VERIFIED:
            line += f", {rim['product']} {rim['edition']} {rim['version']}, {counted(rim['active'], 'golden value')}"
            line += f", signed by {rim['signer']}, signers until {rim['expires']}"
        lines.append(line)
    open_answers = [answer for answer in answers if answer.get("reason") == _OF_A_DEVICE]
    answers = [answer for answer in answers if answer.get("reason") != _OF_A_DEVICE]
    if len(answers) > _LISTED:
        sums = Counter(str(answer["state"]) for answer in answers)
        lines.append("  revocation answers: " + ", ".join(f"{count} {what}" for what, count in sums.items()))
        answers = [answer for answer in answers if answer["state"] == NOT_VERIFIED][:_LISTED]
    for answer in answers:
        name = f"OCSP answer {answer['sha256'][:12]}"
        what = ""
        if "serial" in answer:
            of = f" ({answer['certificate']})" if "certificate" in answer else ""
            name = f"OCSP answer for {answer['serial']}{of}"
            what = f", {answer['status']}, {answer['this_update']} to {answer['next_update']}"
        lines.append(f"  {name}: {_state(answer)}{what if answer['state'] != NOT_VERIFIED else ''}")
    lines += _of_devices(open_answers)
    for item in cpu:
        line = f"  {item.get('about') or 'CPU collateral ' + item['sha256'][:12]}: {_state(item)}"
        if item["state"] != NOT_VERIFIED:
            line += f", under the roots of {item['anchors']}, good until {item['until']}"
        lines.append(f"{line}   {SIMULATED}" if item.get("simulated") is True else line)
    if first is not None:
        lines.append(f"  first to expire: {first['of']}, {first['at']}")
    return joined(lines)


def _of_devices(answers: list[JsonObject]) -> list[str]:
    """What these answers say, in one line: without the devices they are neither verified nor bad."""
    if not answers:
        return []
    said = Counter(str(answer["status"]) for answer in answers)
    ends = sorted(str(answer["next_update"]) for answer in answers if answer["next_update"] is not None)
    until = f", the first until {ends[0]}" if ends else ""
    sums = ", ".join(f"{count} {what}" for what, count in said.items())
    number = counted(len(answers), "revocation answer")
    return [
        f"  {number} about certificates that no RIM here has, not verified: {sums}{until}",
        "    the evidence of the devices verifies them: nvattest bundle inspect FILE --gpu-evidence-file EVIDENCE",
    ]


def _state(entry: JsonObject) -> str:
    return f"NOT VERIFIED: {entry['reason']}" if entry["state"] == NOT_VERIFIED else str(entry["state"])


# --- before a rollout -------------------------------------------------------------------------------------------------


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
    report = _Preflight(collateral, verifier, at)
    rims = [report.rim(rim_id) for rim_id in needs.rim_ids]
    devices = [
        {
            "certificate": chain.leaf.label,
            "serial": f"{chain.leaf.serial:x}",
            "revocation": report.revocation(chain, ChainProfile.DEVICE, chain.leaf.label),
        }
        for chain in needs.chains
    ]
    for key, missing in needs.refused.items():
        report.problem(key, missing)
    missing_cpu = collateral.unavailable.get("cpu")
    if missing_cpu is not None:
        report.problem("cpu", missing_cpu)
    cpu = [report.cpu(answer, cpu_anchors or CPU_ANCHORS) for answer in collateral.cpu]
    if not rims and not devices and not cpu and missing_cpu is None:
        report.problem("", Unavailable(ResultCode.BAD_ARGUMENT, "there is nothing to look for"))
    return {
        "ready": not report.problems,
        "result_code": report.problems[0]["result_code"] if report.problems else 0,
        "rims": rims,
        "devices": devices,
        **({"cpu": cpu} if cpu else {}),
        "problems": report.problems,
        "first_to_expire": _time(min(report.ends, default=None)),
        "at": {"device": format_time(at.device), "rim": format_time(at.rim)},
        "anchors": verifier.anchors.label,
        "simulated": verifier.anchors.simulated,
    }


class _Preflight:
    def __init__(self, collateral: Collateral, verifier: Verifier, at: VerificationTime) -> None:
        self._collateral = collateral
        self._memory = memory_of(verifier)
        self._anchors = verifier.anchors
        self._at = at
        self.problems: list[JsonObject] = []
        self.ends: list[datetime] = []

    def problem(self, of: str, what: Unavailable) -> str:
        self.problems.append({"result_code": int(what.code), "of": of, "message": what.message, "hint": what.hint})
        return what.message

    def cpu(self, answer: CpuAnswer, anchors: CpuAnchors) -> JsonObject:
        issued, facts = _cpu_facts(answer, anchors)
        facts["source"] = answer.source.value
        if problem := issued.problem or issued.current(self._at.device):
            message = f"{facts['about']}: {problem}"
            facts["problem"] = self.problem("cpu", Unavailable(ResultCode.CERT_CHAIN_VERIFICATION_FAILURE, message))
        elif issued.until is not None:
            self.ends.append(issued.until)
        return facts

    def rim(self, rim_id: str) -> JsonObject:
        answer = self._collateral.rims.get(rim_id)
        facts: JsonObject = {"id": rim_id, "available": answer is not None}
        if answer is None:
            unknown = Unavailable(ResultCode.RIM_NOT_FOUND, f"{rim_id} is not at hand")
            missing = self._collateral.unavailable.get(f"rim:{rim_id}", unknown)
            return facts | {"asked": missing.asked, "problem": self.problem(rim_id, missing)}
        facts |= {"source": answer.source.value, "sha256": hashlib.sha256(answer.content).hexdigest()}
        try:
            document = self._memory.parse_rim(answer.content)
        except ParseError as error:
            bad = Unavailable(error.result_code, self._memory.explain_rim(error, answer.content), error.hint)
            return facts | {"problem": self.problem(rim_id, bad)}
        verification = self._memory.verify_rim(document, self._anchors, self._at.rim)
        chain = verification.chain
        facts |= {
            "version": document.version,
            "product": document.product,
            "edition": document.edition,
            "signed": verification.verified is not None,
            "signers_end": format_time(chain.earliest_not_after) if chain.certificates else None,
        }
        if verification.verified is None:
            bad = Unavailable(ResultCode.RIM_INVALID_SIGNATURE, verification.detail)
            return facts | {"problem": self.problem(rim_id, bad)}
        self.ends.append(chain.earliest_not_after)
        if not chain.in_validity:
            code, message = ResultCode.CERT_CHAIN_VERIFICATION_FAILURE, f"{rim_id}: {_validity(chain)}"
            facts["problem"] = self.problem(rim_id, Unavailable(code, message, "ask NVIDIA for a new issue"))
        return facts | {"revocation": self.revocation(chain, ChainProfile.RIM, rim_id)}

    def revocation(self, chain: ValidatedChain, profile: ChainProfile, of: str) -> list[JsonObject]:
        return [self._question(question, of) for question in certificates_to_ask([chain], profile)]

    def _question(self, question: Question, of: str) -> JsonObject:
        found = question.judged(self._collateral, self._at, self._memory)
        revocation, label = found.revocation, question.certificate.label
        asked = True
        if revocation.status is not RevocationStatus.GOOD:
            missing = self._collateral.unavailable.get(question.key)
            if found.source is not None or missing is None:
                missing = Unavailable(ResultCode.OCSP_STATUS_NOT_GOOD, f"{label}: {revocation.detail}")
            asked = missing.asked
            self.problem(of, missing)
        elif revocation.next_update is not None:
            self.ends.append(revocation.next_update)
        return {
            "certificate": label,
            "status": revocation.status.value,
            "asked": asked,
            "detail": revocation.detail,
            "source": found.source.value if found.source is not None else None,
            "next_update": _time(revocation.next_update),
        }


def render_preflight(facts: Mapping[str, Any]) -> str:
    lines = []
    for rim in facts["rims"]:
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
    for device in facts["devices"]:
        lines.append(f"  device  {device['certificate']} {device['serial']}")
        lines += _revocation_lines(device)
    for item in facts.get("cpu", []):
        mark = "ok     " if "problem" not in item else "BAD    "
        lines.append(f"  {mark} {item['about']}, from the {item['source']}, good until {item['until']}")
        if item["anchors"] != CPU_MAKERS:
            mark = f"   {SIMULATED}" if item["simulated"] else ""
            lines.append(f"          roots: {item['anchors']}, not the makers'{mark}")
    for problem in facts["problems"]:
        lines.append(f"  problem {problem['result_code']}: {problem['message']}")
        if problem["hint"]:
            lines.append(f"          next: {problem['hint']}")
    if facts["first_to_expire"]:
        lines.append(f"  first to expire: {facts['first_to_expire']}")
    lines += foreign_anchors(facts["anchors"], simulated=facts["simulated"] is True)
    lines.append(f"  judged at {' / '.join(dict.fromkeys(facts['at'].values()))}")
    lines.append("Ready: " + ("yes" if facts["ready"] else "NO"))
    return joined(lines)


def foreign_anchors(label: object, *, simulated: bool) -> list[str]:
    """A line that names other trust anchors than NVIDIA's, or none."""
    if label == NVIDIA_ANCHORS.label:
        return []
    mark = f"   {SIMULATED}" if simulated else ""
    return [f"  trust anchors: {label}, not NVIDIA's{mark}"]


def _revocation_lines(of: Mapping[str, Any]) -> list[str]:
    return [
        f"            {item['certificate']}: {item['status'] if item['asked'] else 'not asked'}"
        + (f" until {item['next_update']}" if item["next_update"] else "")
        for item in of.get("revocation", [])
    ]
