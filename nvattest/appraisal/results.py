"""What an appraisal holds: every check, and beside the checks the parsed and verified things that they were made on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from nvattest.appraisal.check import REQUIRED, REQUIRED_PLATFORM, Check, Outcome, decide, result_code, unacceptable
from nvattest.appraisal.inputs import EvidencePolicy, Source
from nvattest.appraisal.measurements import Comparison, SvnComparison
from nvattest.errors import NotTrustedError, ResultCode
from nvattest.model import Architecture, DeviceKind, Nonce, NoTruthValue, VerificationTime, counted
from nvattest.pki.certificate import Certificate
from nvattest.pki.chain import ValidatedChain
from nvattest.pki.ocsp import Revocation
from nvattest.rim.document import RimDocument
from nvattest.rim.ids import RimRole
from nvattest.spdm.report import Report

if TYPE_CHECKING:
    from nvattest.appraisal.guest import GuestAppraisal


class CertificateRevocation(NamedTuple):
    """The revocation answer for one certificate. ``source`` is None where there was no answer."""

    certificate: Certificate
    revocation: Revocation
    source: Source | None


class ChainAppraisal(NamedTuple):
    """A chain, validated, with the revocation answers for the certificates that have a responder, topmost first."""

    validated: ValidatedChain
    revocations: tuple[CertificateRevocation, ...]


class RimAppraisal(NamedTuple):
    """One RIM of a device: its id, where it came from and what became of it."""

    role: RimRole
    id: str
    source: Source | None
    origin: str
    document: RimDocument | None
    chain: ChainAppraisal | None


class DeviceIdentity(NamedTuple):
    """Who a device is, by its certificates: nothing here comes from the driver.

    ``ueid`` is the leaf's serial number in decimal, ``hwmodel`` the common name of the certificate above the leaf,
    ``pdi`` the 16 hexadecimal digits of the BROM subject's serial number without its first byte, ``chip`` the chip in
    the names.
    """

    ueid: str
    hwmodel: str
    pdi: str | None
    chip: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAppraisal(NoTruthValue):
    """All checks of one device. ``trusted`` is true only if every required check is there and acceptable."""

    index: int
    kind: DeviceKind
    declared_architecture: Architecture
    origin: str
    report_sha256: str
    chain_sha256: str
    checks: tuple[Check, ...]
    report: Report | None
    identity: DeviceIdentity | None
    chain: ChainAppraisal | None
    rims: Mapping[RimRole, RimAppraisal]
    comparison: Comparison | None
    svn: SvnComparison | None

    _ask: ClassVar[str] = ".trusted"

    def __repr__(self) -> str:
        verdict = "trusted" if self.trusted else f"not trusted, {counted(len(self.failures), 'failure')}"
        return f"<DeviceAppraisal {self.label} {self.declared_architecture.value}: {verdict}>"

    @property
    def label(self) -> str:
        """``GPU-0`` or ``SWITCH-0``: the device's name in text and tokens."""
        return f"{self.kind.label}-{self.index}"

    @property
    def trusted(self) -> bool:
        """Whether this device may be believed."""
        return decide(self.checks, REQUIRED[self.kind])

    @property
    def result_code(self) -> ResultCode:
        """OK, or the code of the first failure in NVIDIA's order of checks."""
        code = result_code(self.checks)
        return ResultCode.OVERALL_RESULT_FALSE if code is ResultCode.OK and not self.trusted else code

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that prevent trust, in the order of the story."""
        return unacceptable(self.checks)

    def check(self, id: str) -> Check | None:  # noqa: A002
        return next((check for check in self.checks if check.id == id), None)

    def passed(self, id: str) -> bool:  # noqa: A002
        return any(check.id == id and check.outcome is Outcome.PASS for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal(NoTruthValue):
    """The appraisal of a platform: all devices of one guest, and the checks that only all of them together allow.

    ``anchors`` is the label of the trust anchors; ``simulated`` says that a chain led to a simulated root. ``guest`` is
    there where the quote of the guest's CPU was judged, too: then the platform is trusted only together with it.
    """

    devices: tuple[DeviceAppraisal, ...]
    checks: tuple[Check, ...]
    nonce: Nonce | None
    at: VerificationTime
    policy: EvidencePolicy
    anchors: str
    simulated: bool
    guest: GuestAppraisal | None = None

    def __repr__(self) -> str:
        verdict = "trusted" if self.trusted else f"not trusted, {counted(len(self.failures), 'failure')}"
        marked = ", simulated" * self.simulated
        return f"<Appraisal {counted(len(self.devices), 'device')} at {self.at}: {verdict}{marked}>"

    @property
    def trusted(self) -> bool:
        """Whether the platform may be believed: every device, every check of the platform, and the guest."""
        if self.guest is not None and not self.guest.trusted:
            return False
        return decide(self.checks, REQUIRED_PLATFORM, devices=[device.trusted for device in self.devices])

    @property
    def result_code(self) -> ResultCode:
        """OK, or the code of the first device that failed, or of the first platform check that did."""
        if self.trusted:
            return ResultCode.OK
        for device in self.devices:
            if not device.trusted:
                return device.result_code
        code = result_code(self.checks)
        if code is ResultCode.OK and self.guest is not None:
            code = self.guest.result_code
        return ResultCode.OVERALL_RESULT_FALSE if code is ResultCode.OK else code

    @property
    def failures(self) -> tuple[tuple[str, Check], ...]:
        """All checks that prevent trust, each with the label of its device (``PLATFORM`` for the whole, ``GUEST``)."""
        of_devices = [(device.label, check) for device in self.devices for check in device.failures]
        of_guest = self.guest.failures if self.guest is not None else ()
        return (
            *of_devices,
            *(("PLATFORM", check) for check in unacceptable(self.checks)),
            *(("GUEST", check) for check in of_guest),
        )

    @property
    def collateral_expires(self) -> datetime | None:
        """When the first of what this rests on ends: the window of an answer, or a certificate above a RIM."""
        rims = [rim.chain for device in self.devices for rim in device.rims.values() if rim.chain is not None]
        answers = [item for chain in [*rims, *(device.chain for device in self.devices)] if chain is not None
                   for item in chain.revocations]  # fmt: skip
        ends = [chain.validated.earliest_not_after for chain in rims]
        ends += [end for item in answers if (end := item.revocation.next_update) is not None]
        return min(ends, default=None)

    @property
    def weakened(self) -> tuple[str, ...]:
        """The names of the policies' weakenings that were on, whether or not they were needed."""
        return (*self.policy.weakenings, *(self.guest.weakened if self.guest is not None else ()))

    def require(self) -> Appraisal:
        """Return this appraisal if it is trusted.

        Raises:
            NotTrustedError: it is not; the message names each device and check that failed, and the number of those
                that could not be made because of it.
        """
        if self.trusted:
            return self
        made = [item for item in self.failures if item[1].outcome is not Outcome.SKIPPED] or self.failures
        lines = [f"{label}: {check.spec.title}: {check.detail}" for label, check in made]
        if more := len(self.failures) - len(made):
            lines.append(f"{more} more {'check' if more == 1 else 'checks'} could not be made")
        first = next((check.hint for _, check in self.failures if check.hint), "")
        raise NotTrustedError(
            "not trusted; " + "; ".join(lines or ["no device"]), result_code=self.result_code, hint=first
        )
