"""The work behind both fronts: evidence in the old shapes, verification here or at NRAS, and the old lines about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nvattest._documents import JsonObject
from nvattest._registry import NRAS_URL, OCSP_URL, RIM_URL
from nvattest.appraisal.inputs import Collateral, EvidencePolicy
from nvattest.compat import CompatValueError, InvalidNonceError, NoEvidenceError, migrated
from nvattest.errors import CollectionError, InputError, ParseError, ResultCode
from nvattest.evidence import Evidence, EvidenceForm, dump_evidence, read_evidence
from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime
from nvattest.rim.ids import RimRole
from nvattest.spdm.opaque import GpuFields

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.collateral.gather import GatherOptions
    from nvattest.collateral.nras import NrasClient
    from nvattest.pki.anchors import TrustAnchors
    from nvattest.token.jose import SigningKey

CLAIMS_VERSIONS: Final = ("2.0", "3.0")
LOCAL_ISSUERS: Final = {DeviceKind.GPU: "LOCAL_GPU_VERIFIER", DeviceKind.NVSWITCH: "LOCAL_SWITCH_VERIFIER"}
NO_NONCE: Final = (
    "revocation answers without a nonce are accepted, but only inside their signed validity window: the old SDK did "
    "not look at the window, so that a recording was good for ever."
)
RULE = "-----------------------------------"
_NOUNS = {DeviceKind.GPU: "GPU", DeviceKind.NVSWITCH: "Switch"}
_LIBRARIES = {DeviceKind.GPU: "GPU driver", DeviceKind.NVSWITCH: "NVSwitch library"}
_MAXIMUM_ANCHORS: Final = 64 * 1024
# Revocation outcomes that the old SDK took for good: it looked at no window, no responder and no certificate id.
_LOOSE: Final = frozenset({"STALE", "NOT_YET_VALID", "BAD_RESPONDER", "WRONG_CERTIFICATE"})


@dataclass(slots=True, kw_only=True)
class Settings:
    """What a verification needs beside evidence and nonce. None leaves it to the environment, read at each use.

    With ``collateral`` the network is left alone. ``at`` is the clock; where it is None, that of this machine, read
    again after the collateral is there.
    """

    service_key: str | None = None
    rim_url: str | None = None
    ocsp_url: str | None = None
    allow_hold_cert: bool | None = None
    ocsp_nonce_disabled: bool = False
    claims_version: str = CLAIMS_VERSIONS[0]
    anchors: TrustAnchors | None = None
    collateral: Collateral | None = None
    at: VerificationTime | None = None

    def key(self) -> str:
        """The service key, or an empty text."""
        if self.service_key is not None:
            return self.service_key
        return _environment("NVIDIA_ATTESTATION_SERVICE_KEY", "NV_ATTESTATION_SERVICE_KEY")

    @property
    def hold_by_environment(self) -> bool:
        """Whether the environment alone, and no word of the caller, lets a certificate on hold count."""
        # Exactly "true", as NVIDIA's SDK reads it.
        return self.allow_hold_cert is None and os.environ.get("NV_ALLOW_HOLD_CERT") == "true"

    @property
    def hold_allowed(self) -> bool:
        """Whether a certificate that is revoked with reason certificateHold counts."""
        return self.hold_by_environment if self.allow_hold_cert is None else self.allow_hold_cert

    def evidence_policy(self) -> EvidencePolicy:
        """The strict policy with the two weakenings that the old SDK has switches for; tokens name them."""
        return EvidencePolicy(
            allow_certificate_hold_for_rims=self.hold_allowed,
            allow_certificate_hold_for_devices=self.hold_allowed,
            accept_live_ocsp_without_nonce=self.ocsp_nonce_disabled,
        )

    def trust_anchors(self) -> TrustAnchors:
        """The roots that the caller gave, those of ``NVATTEST_TRUST_ANCHORS``, or NVIDIA's."""
        from nvattest._system import read_bounded
        from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem

        if self.anchors is not None:
            return self.anchors
        path = os.environ.get("NVATTEST_TRUST_ANCHORS", "")
        return trust_anchors_from_pem(read_bounded(path, _MAXIMUM_ANCHORS)) if path else NVIDIA_ANCHORS

    def gather_options(self) -> GatherOptions:
        """Where RIMs and revocation answers are asked for. Nothing is kept on disk, as in the old SDK."""
        from nvattest.collateral.gather import GatherOptions
        from nvattest.collateral.http import HttpSettings

        rim_url = self.rim_url or _environment("NV_RIM_URL", "NVAT_RIM_SERVICE_BASE_URL") or RIM_URL
        ocsp_url = self.ocsp_url or _environment("NV_OCSP_URL", "NVAT_OCSP_BASE_URL") or OCSP_URL
        http = HttpSettings(service_key=self.key(), key_hosts=(rim_url, ocsp_url))
        return GatherOptions(rim_url=rim_url, ocsp_url=ocsp_url, http=http)


class Verifier(NamedTuple):
    """A configured verifier: the URL of NRAS, or None for one on this machine, with the URLs of its services."""

    name: str
    kind: DeviceKind
    url: str | None
    ocsp_url: str | None
    rim_url: str | None


class Result(NamedTuple):
    """The outcome of one verifier: its verdict for all devices together, its detached EAT, and lines to print."""

    trusted: bool
    token: Any
    lines: Sequence[str]


def read_nonce(text: object) -> Nonce:
    """The nonce of the old interfaces: 64 hexadecimal digits as a text; anything else is an InvalidNonceError."""
    if not isinstance(text, str) or len(text) != 64:
        shown = f"a text of {len(text)} characters" if isinstance(text, str) else type(text).__name__
        raise InvalidNonceError(f"the nonce is {shown}", hint="give 64 hexadecimal digits")
    try:
        return Nonce.from_hex(text)
    except InputError as error:
        raise InvalidNonceError(error.message, hint=error.hint) from None


def new_nonce() -> Nonce:
    """32 random bytes."""
    return Nonce(os.urandom(32))


def new_key(warning: str) -> SigningKey:
    """A key for tokens, in memory; ``warning`` names the practice of the old package."""
    from nvattest.token.jose import SigningKey

    migrated(warning)
    return SigningKey.generate()


def check_claims_version(version: object) -> str:
    """A claims version of the old SDK; another one is a CompatValueError."""
    if version not in CLAIMS_VERSIONS:
        raise CompatValueError(
            f"there are no claims of version {version!r} in the SDK",
            code="claims-version",
            hint=f"one of {', '.join(CLAIMS_VERSIONS)}; nvattest itself has 4.0 too",
        )
    return str(version)


def collect(kind: DeviceKind, nonce: Nonce, *, ppcie_mode: bool, no_gpu_mode: bool) -> tuple[Evidence, ...]:
    """Evidence from this machine's devices, or of a simulated one.

    Raises:
        CollectionError: the driver gave none, or the machine is in PPCIE mode and ``ppcie_mode`` refuses such.
    """
    if no_gpu_mode:
        return _simulated(kind, nonce)
    from nvattest import session

    if ppcie_mode:
        _refuse_ppcie(kind)
    return session.collect(nonce, kinds=(kind,))


def _refuse_ppcie(kind: DeviceKind) -> None:
    from nvattest.devices.nvml import NvmlLibrary
    from nvattest.devices.state import read_state

    try:
        with NvmlLibrary.open() as library:
            ppcie = read_state(library).protected_pcie
    except CollectionError:
        # Without NVML the collection itself says what is missing; switches can be asked without it.
        if kind is DeviceKind.GPU:
            raise
        return
    if ppcie:
        raise CollectionError(
            "this machine is in protected PCIe mode, and ppcie_mode=True refuses such machines",
            code="ppcie-mode",
            result_code=ResultCode.GPU_MODE_NOT_SUPPORTED,
            hint='get_evidence(options={"ppcie_mode": False}); the name is the old SDK\'s',
        )


def _simulated(kind: DeviceKind, nonce: Nonce) -> tuple[Evidence, ...]:
    from nvattest.testing.platform import Platform

    migrated(
        "no_gpu_mode gives evidence of a simulated device: it is signed for the nonce and proves nothing, so that the "
        "default trust anchors refuse it. The old sample had a fixed nonce. See 'nvattest simulate' for a whole world."
    )
    name = "hopper-1" if kind is DeviceKind.GPU else "hopper-8-ppcie"
    platform = Platform.build(name, clock=datetime.now(timezone.utc))
    return platform.evidence(nonce, kind)


# --- evidence in the shapes that the old packages hand out, and back from them ----------------------------------------


@dataclass(frozen=True, repr=False)
class _Handle:
    evidence: Evidence

    def __repr__(self) -> str:
        uuid = self.evidence.hints.get("uuid") or "without UUID"
        return f"<{type(self).__name__} {self.evidence.architecture.value} {uuid}>"


class GpuHandle(_Handle):
    """The evidence of one GPU with the getters of NVIDIA's ``NvmlHandler``.

    Versions and UUID are the driver's words, or empty; the verification takes them from the signed report.
    """

    def get_gpu_architecture(self) -> str:
        """``HOPPER``, ``BLACKWELL`` or ``RUBIN``."""
        return self.evidence.architecture.value

    def get_gpu_architecture_value(self) -> int | None:
        """NVML's number of the architecture, such as 9 for Hopper."""
        from nvattest.devices.collect import NVML_ARCHITECTURES

        numbers = {architecture: number for number, architecture in NVML_ARCHITECTURES.items()}
        return numbers.get(self.evidence.architecture)

    def get_uuid(self) -> str:
        return self.evidence.hints.get("uuid", "")

    def get_driver_version(self) -> str:
        return self.evidence.hints.get("driver_version", "")

    def get_vbios_version(self) -> str:
        return self.evidence.hints.get("vbios_version", "").lower()

    def get_attestation_report(self) -> bytes:
        return self.evidence.report

    def get_attestation_cert_chain(self) -> list[Certificate]:
        """The certificates, leaf first: those of ``cryptography``, where NVIDIA's are pyOpenSSL's."""
        from cryptography import x509

        return x509.load_pem_x509_certificates(self.evidence.certificate_chain)


class SwitchHandle(_Handle):
    """The evidence of one NVSwitch with the attributes of the old one."""

    @property
    def uuid(self) -> str:
        """The name that NSCQ gave, or an empty text."""
        return self.evidence.hints.get("uuid", "")

    @property
    def attestation_cert_chain(self) -> bytes:
        return self.evidence.certificate_chain

    @property
    def attestation_report(self) -> bytes:
        return self.evidence.report


def handles(evidence: Sequence[Evidence]) -> list[Any]:
    """The form for a LOCAL verifier."""
    return [GpuHandle(item) if item.kind is DeviceKind.GPU else SwitchHandle(item) for item in evidence]


def dictionaries(evidence: Sequence[Evidence]) -> list[dict[str, str]]:
    """The form for a REMOTE verifier: what NRAS reads; switches without ``arch``, as in the old SDK."""
    array: Any = dump_evidence(evidence, form=EvidenceForm.ARRAY)
    names = {DeviceKind.GPU: ("certificate", "evidence", "arch"), DeviceKind.NVSWITCH: ("certificate", "evidence")}
    return [{name: made[name] for name in names[item.kind]} for item, made in zip(evidence, array, strict=True)]


def evidence_of(items: object, kind: DeviceKind, nonce: Nonce) -> tuple[Evidence, ...]:
    """Evidence from a list of handles, of dictionaries or of ``nvattest.Evidence``.

    Raises:
        NoEvidenceError: no list, an empty one, an item of something else, or of the other kind of device.
    """
    if not isinstance(items, list | tuple):
        raise NoEvidenceError(
            f"evidence is a list, not {type(items).__name__}", hint="give what get_evidence() returned"
        )
    if not items:
        raise NoEvidenceError(
            "there is no evidence to verify", hint="the old SDK gave [] after a failure; get_evidence() raises it now"
        )
    found = tuple(_one(index, item, kind, nonce) for index, item in enumerate(items))
    for index, item in enumerate(found):
        if item.kind is not kind:
            raise NoEvidenceError(
                f"item {index} is the evidence of a {item.architecture.value}, which is no {kind.value}",
                code="device-kind",
                hint="GPUs and switches are two rounds, with clear_verifiers() between them",
            )
    return found


def _one(index: int, item: object, kind: DeviceKind, nonce: Nonce) -> Evidence:
    if isinstance(item, _Handle):
        return item.evidence
    if isinstance(item, Evidence):
        return item
    if not isinstance(item, dict):
        raise NoEvidenceError(f"item {index} is {type(item).__name__}, which is no evidence")
    architecture = item.get("arch", Architecture.LS10.value if kind is DeviceKind.NVSWITCH else "")
    members = {name: item[name] for name in ("evidence", "certificate") if name in item}
    try:
        return read_evidence([{"arch": str(architecture).upper(), "nonce": nonce.hex(), **members}])[0]
    except ParseError as error:
        message = error.message.replace("item 0", f"item {index}", 1)
        raise NoEvidenceError(message, code=error.code, hint=error.hint) from None


# --- verification -----------------------------------------------------------------------------------------------------


def verify_locally(
    evidence: Sequence[Evidence],
    *,
    nonce: Nonce,
    settings: Settings,
    key: SigningKey,
    known: Collateral | None = None,
) -> tuple[Result, Appraisal, tuple[str, ...]]:
    """Verify on this machine and sign the result, good or bad. ``known`` is what the services are not asked for.

    Returns the result, its appraisal, and the trusted devices that a certificate on hold makes so.
    """
    from nvattest import session
    from nvattest.token.claims import claims_of

    anchors = settings.trust_anchors()
    if settings.anchors is None and not anchors.is_default:
        migrated(
            "NVATTEST_TRUST_ANCHORS names other trust anchors than NVIDIA's: a good result is good by these. Under "
            "'nvattest simulate' that is right; anywhere else take the variable away."
        )
    policy, given, at, version = settings.evidence_policy(), settings.collateral, settings.at, settings.claims_version
    if given is not None:
        appraisal = session.verify(evidence, nonce=nonce, collateral=given, at=at, policy=policy, anchors=anchors)
    else:
        options = settings.gather_options()
        appraisal = session.attest(
            evidence, nonce=nonce, known=known, options=options, at=at, policy=policy, anchors=anchors
        )
    token = session.issue_token(appraisal, key, claims_version=version, issuer=LOCAL_ISSUERS[evidence[0].kind])
    # Not by the option that a check names: of several reasons it has one.
    held = tuple(device.label for device in appraisal.devices if device.trusted and "ON_HOLD" in _statuses(device))
    _warn_of_differences(appraisal, held, settings)
    lines = verified(appraisal, evidence, claims_of(appraisal, version=version))
    return Result(appraisal.trusted, token, lines), appraisal, held


def _statuses(device: DeviceAppraisal) -> set[str]:
    chains = [device.chain, *(rim.chain for rim in device.rims.values())]
    return {item.revocation.status.name for chain in chains if chain is not None for item in chain.revocations}


def _warn_of_differences(appraisal: Appraisal, held: tuple[str, ...], settings: Settings) -> None:
    if held:
        why = "NV_ALLOW_HOLD_CERT in the environment" if settings.hold_by_environment else "allow_hold_cert"
        migrated(
            f"{', '.join(held)}: a certificate is on hold, that is, NVIDIA has suspended it, and it counts as good "
            f"because of {why}. The old SDK did not say so."
        )
    if appraisal.trusted:
        return
    bad = [device.label for device in appraisal.devices if not device.trusted]
    if bad and appraisal.devices[-1].trusted:
        migrated(
            f"{', '.join(bad)} failed and the result is False. The old SDK kept one result object for all GPUs of an "
            "architecture, so that a good GPU after a bad one could make it True."
        )
    for device in appraisal.devices:
        statuses = _statuses(device) & _LOOSE
        if statuses:
            migrated(
                f"{device.label}: a revocation answer does not count ({', '.join(sorted(statuses)).lower()}). The old "
                "SDK checked neither the validity window of an answer, nor its responder, nor which certificate it "
                "is about."
            )
            return


def nras_default(*, switch: bool) -> str:
    """The URL of NRAS where none is given."""
    name, path = ("NV_NRAS_NVSWITCH_URL", "switch") if switch else ("NV_NRAS_GPU_URL", "gpu")
    return _environment(name, "NVAT_NRAS_BASE_URL") or f"{NRAS_URL}/v3/attest/{path}"


def nras_base(url: str) -> str:
    """The base of an NRAS URL: old ones end in ``/v3/attest/gpu``, and the client asks v4 (and refuses plain http)."""
    base = re.sub(r"/v[0-9]+/attest/(gpu|switch)/?$", "", url.rstrip("/"))
    if not base.startswith(("https://", "http://")):
        raise CompatValueError(f"not a URL of NRAS: {url[:200]!r}", code="url", hint=f"{NRAS_URL}/v3/attest/gpu")
    return base


def verify_at_nras(evidence: Sequence[Evidence], *, nonce: Nonce, url: str, settings: Settings) -> Result:
    """Have NRAS verify devices of one architecture, and verify its answer at ``at``, or when it has come.

    Raises:
        NoEvidenceError: devices of several architectures.
        InputError: a URL that cannot be used.
        CollateralError: no answer.
        TokenError: an answer that must not be believed.
    """
    if len({item.architecture for item in evidence}) != 1:
        raise NoEvidenceError("NRAS verifies devices of one architecture at a time", code="architecture")
    if settings.hold_allowed:
        migrated(
            "certificates on hold are allowed here, and this is not passed on to NRAS: its answer has its own findings "
            "and your policy decides."
        )
    at = settings.at.device if settings.at is not None else None
    with _nras(url, key=settings.key(), claims_version=settings.claims_version) as client:
        # A caller that names simulated roots wants simulated devices; the token marks them as simulated.
        answers = client.attest(evidence, nonce=nonce, at=at, accept_simulated=settings.trust_anchors().simulated)
    verified = answers[0].verified
    if not verified.of_nvidia:
        simulated = " and is simulated, which proves nothing" if verified.simulated else ""
        migrated(
            f"{verified.issuer} verified, which is not NVIDIA's remote service{simulated}: a good result is "
            "good by its word alone."
        )
    return Result(verified.overall, answers[0].token, tuple(map(str, verified.refusals)))


def nras_keys(url: str) -> JsonObject:
    """The key set of NRAS, over TLS and without the service key."""
    with _nras(url) as client:
        return client.keys()


def _nras(url: str, *, key: str = "", claims_version: str | None = None) -> NrasClient:
    from nvattest.collateral.http import HttpSettings
    from nvattest.collateral.nras import NrasClient

    base = nras_base(url)
    return NrasClient(base, http=HttpSettings(service_key=key, key_hosts=(base,)), claims_version=claims_version)


def _environment(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, ""))), "")


# --- the lines of NVIDIA's sample run, printed on stdout in verbose mode ----------------------------------------------


def fetched(evidence: Sequence[Evidence]) -> Iterator[str]:
    """The lines of a collection."""
    kind = evidence[0].kind
    yield f"Number of {_NOUNS[kind]}s available : {len(evidence)}"
    for index in range(len(evidence)):
        yield RULE
        yield f"Fetching {_NOUNS[kind]} {index} information from {_LIBRARIES[kind]}."
    yield f"All {_NOUNS[kind]} Evidences fetched successfully"


def verified(appraisal: Appraisal, evidence: Sequence[Evidence], claims: Sequence[Mapping[str, object]]) -> list[str]:
    """The lines of a verification: each device as far as the old program would have gone, and further."""
    lines: list[str] = []
    for device, item, said in zip(appraisal.devices, evidence, claims, strict=True):
        name = f"{_NOUNS[device.kind]} {device.index}"
        lines += _device(device, item)
        if device.trusted:
            lines.append(f"\t{name} verified successfully.")
        else:
            lines.append(f"\tThe verification of {name} resulted in failure.")
            lines += [f"\t\t{check.id}: {check.detail}" for check in device.failures[:8]]
        lines += [f"\tattestation result: {device.trusted}", f"\tclaims list:: {dict(said)}"]
    noun = _NOUNS[appraisal.devices[0].kind]
    lines.append(f"{noun} Attestation is Successful." if appraisal.trusted else f"{noun} Attestation failed.")
    return lines


def _device(device: DeviceAppraisal, item: Evidence) -> Iterator[str]:
    noun, passed = _NOUNS[device.kind], device.passed
    gpu = device.kind is DeviceKind.GPU
    fields = device.report.fields if device.report is not None else None
    driver, vbios = (fields.driver_version, fields.vbios_version) if isinstance(fields, GpuFields) else ("", "")
    yield RULE
    yield f"VERIFYING {noun} : {device.index}"
    if gpu:
        yield f"\tDriver version fetched : {item.hints.get('driver_version', driver)}"
        yield f"\tVBIOS version fetched : {item.hints.get('vbios_version', vbios).lower()}"
    yield f"\tValidating {noun} certificate chains."
    chain = passed("chain-path") and passed("chain-validity")
    yield f"\t\t{noun} attestation report certificate chain validation {_word(chain)}."
    yield _revocation(device, "chain-revocation")
    yield "\tAuthenticating attestation report"
    matching = "is" if passed("nonce") else "is not"
    yield f"\t\tThe nonce in the SPDM GET MEASUREMENT request message {matching} matching with the generated nonce."
    if gpu:
        yield f"\t\tDriver version fetched from the attestation report : {driver}"
        yield f"\t\tVBIOS version fetched from the attestation report : {vbios.lower()}"
    signed = passed("report-signature")
    yield f"\t\tAttestation report signature verification {_word(signed)}."
    good = signed and all(map(passed, ("report-format", "nonce", "architecture", "hints")))
    yield f"\t\tAttestation report verification {_word(good)}."
    yield "\tAuthenticating the RIMs."
    if gpu:
        yield "\t\tAuthenticating Driver RIM"
        yield from _rim(device, RimRole.DRIVER, "Driver", "")
    firmware = RimRole.VBIOS if gpu else RimRole.BIOS
    yield f"\t\tAuthenticating {firmware.value.upper()} RIM."
    yield from _rim(device, firmware, firmware.value.upper(), "RIM ")
    yield "\tComparing measurements (runtime vs golden)"
    if passed("measurements") and passed("rim-conflict"):
        yield "\t\tThe runtime measurements are matching with the golden measurements."
        yield f"\t\t{noun} is in the expected state."
        return
    yield "\t\tThe runtime measurements are not matching with the golden measurements."
    if device.comparison is not None:
        for cell in device.comparison.mismatches:
            yield f"\t\t\tindex {cell.index} ({'Driver' if cell.role is RimRole.DRIVER else 'Firmware'})"


def _rim(device: DeviceAppraisal, role: RimRole, title: str, prefix: str) -> Iterator[str]:
    stem, passed = f"{role.value}-rim", device.passed
    if not passed(f"{stem}-available"):
        rim = device.rims.get(role)
        yield f"\t\t\tUnable to fetch RIM {rim.id if rim is not None else ''}".rstrip()
        return
    schema, signed = passed(f"{stem}-format"), passed(f"{stem}-signature")
    chain = passed(f"{stem}-chain") and passed(f"{stem}-validity")
    yield f"\t\t\t{prefix}Schema validation {'passed' if schema else 'failed'}."
    yield f"\t\t\t{role.value} RIM certificate chain verification {_word(chain)}."
    yield _revocation(device, f"{stem}-revocation")
    yield f"\t\t\t{role.value} RIM signature verification {_word(signed)}."
    good = schema and chain and signed and passed(f"{stem}-binding")
    yield f"\t\t\t{title} RIM verification {_word(good)}"


def _revocation(device: DeviceAppraisal, name: str) -> str:
    check = device.check(name)
    good = check is not None and check.acceptable
    return f"\t\t\tThe certificate chain revocation status verification {_word(good)}."


def _word(good: bool) -> str:
    return "successful" if good else "failed"
