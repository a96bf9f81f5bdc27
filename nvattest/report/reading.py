"""From the JSON of a saved appraisal to its view: tolerant of other versions, and of anything that is missing.

The verdict is made again from the checks, so that a file cannot claim more than they say.
"""

from __future__ import annotations

from typing import Final

from nvattest._registry import NO_PDI
from nvattest._text import clean
from nvattest.appraisal.check import CHECKS, REQUIRED, REQUIRED_PLATFORM
from nvattest.appraisal.serialize import FORMAT, VERSION
from nvattest.errors import InputError
from nvattest.model import DeviceKind
from nvattest.report.model import (
    AppraisalView,
    CellView,
    CertificateView,
    ChainView,
    CheckView,
    DeviceView,
    RevocationView,
    RimView,
    SvnView,
)
from nvattest.report.values import JsonObject, common_name, flag, item, items, number, text, texts

PLATFORM: Final = "PLATFORM"
MAXIMUM_DEVICES: Final = 256


def is_appraisal(document: object) -> bool:
    """Whether a JSON value is an appraisal, of whatever version."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def read_appraisal(document: object) -> AppraisalView:
    """Read an appraisal for display. The verdict is made again from the checks: a file cannot claim more than they say.

    Raises:
        InputError: it is no appraisal at all (``explain-format``).
    """
    if not isinstance(document, dict) or not is_appraisal(document):
        raise InputError("this is not an appraisal", code="explain-format", hint="give the output of attest -f json")
    notices: list[str] = []
    version = number(document, "version")
    if version is None:
        notices.append("The file does not say which version of the format it has; what is missing is left out.")
    elif version > VERSION:
        notices.append(
            f"The file has version {version} of the format, newer than this program ({VERSION}): it may say more than "
            "is shown here. Explain it with the nvattest that made it."
        )
    elif version < VERSION:
        notices.append(
            f"The file has version {version} of the format, older than this program ({VERSION}): what it lacks is "
            "left out."
        )
    devices = tuple(_device(entry, index) for index, entry in enumerate(items(document, "devices")[:MAXIMUM_DEVICES]))
    checks = _checks(document, PLATFORM)
    unknown = sorted(
        {check.id for check in (*checks, *(c for d in devices for c in d.checks)) if check.id not in CHECKS}
    )
    if unknown:
        notices.append(f"This program does not know the checks {', '.join(unknown[:8])}; they are shown as they stand.")
    missing = [name for name in REQUIRED_PLATFORM if name not in {check.id for check in checks}]
    trusted = (
        bool(devices)
        and all(device.trusted for device in devices)
        and not missing
        and all(check.acceptable for check in checks)
    )
    claimed = flag(document, "trusted")
    if claimed and not trusted:
        notices.append(
            "The file says that the platform is trusted, but its checks do not: it was changed or cut short, or made "
            "by another version. Nothing in it counts as trusted here."
        )
    if claimed is None:
        notices.append("The file holds no verdict; the one shown here follows from its checks.")
    at = item(document, "at")
    return AppraisalView(
        trusted=trusted and claimed is True,
        result_code=number(document, "result_code"),
        result_message=text(document, "result_message"),
        nonce=text(document, "nonce"),
        device_time=text(at, "device"),
        rim_time=text(at, "rim"),
        anchors=text(document, "anchors", "not recorded"),
        # What does not say that it is real is not taken for real.
        simulated=flag(document, "simulated") is not False,
        weakened=texts(document, "weakened"),
        policy=tuple(
            (clean(name, 100), _word(value)) for name, value in sorted(item(document, "policy").items())[:128]
        ),
        checks=checks,
        devices=devices,
        notices=tuple(notices),
    )


def _word(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_word(member) for member in value[:32]) or "not set"
    return text({"value": value}, "value", "?")


def _checks(source: JsonObject, device: str) -> tuple[CheckView, ...]:
    found = []
    for entry in items(source, "checks"):
        id_, outcome = text(entry, "id", "?"), text(entry, "outcome", "unknown")
        spec = CHECKS.get(id_)
        tolerated = text(entry, "tolerated_by")
        # The same rule as the verifier's: a failure is never acceptable, a gap only under a named option.
        acceptable = outcome == "pass" or (outcome in ("absent", "skipped") and tolerated != "")
        found.append(
            CheckView(
                device=device,
                id=id_,
                step=number(entry, "step") or (spec.step if spec is not None else None),
                title=spec.title if spec is not None else text(entry, "title", id_),
                outcome=outcome,
                acceptable=acceptable and flag(entry, "acceptable") is not False,
                detail=text(entry, "detail"),
                expected=text(entry, "expected"),
                found=text(entry, "found"),
                hint=text(entry, "hint"),
                tolerated_by=tolerated,
                code=number(entry, "code"),
            )
        )
    return tuple(found)


def _device(source: JsonObject, position: int) -> DeviceView:
    label = text(source, "label", f"device {position}")
    identity, report = item(source, "identity"), item(source, "report")
    checks = _checks(source, label)
    kind = text(source, "kind", "gpu")
    known = DeviceKind.NVSWITCH if kind == DeviceKind.NVSWITCH.value else DeviceKind.GPU
    present = {check.id for check in checks}
    complete = all(name in present for name in REQUIRED[known])
    claimed = flag(source, "trusted") is True
    versions = {name: value for name, value in report.items() if name.endswith("_version") and name != "opaque_version"}
    firmware = next((str(value) for name, value in sorted(versions.items()) if name != "driver_version"), "")
    board = [text(report, name) for name in ("project", "project_sku", "chip_sku") if text(report, name)]
    layout = text(report, "opaque_layout")
    return DeviceView(
        label=label,
        kind=kind,
        architecture=text(source, "architecture"),
        claimed_trusted=claimed,
        trusted=claimed and complete and all(check.acceptable for check in checks),
        origin=text(source, "origin"),
        report_sha256=text(source, "report_sha256"),
        chain_sha256=text(source, "chain_sha256"),
        ueid=text(identity, "ueid"),
        hwmodel=text(identity, "hwmodel"),
        pdi=text(identity, "pdi"),
        chip=text(identity, "chip"),
        driver_version=text(report, "driver_version"),
        firmware_version=text({"value": firmware}, "value"),
        mode=text(report, "mode"),
        board="/".join(board),
        opaque=f"{layout} {text(report, 'opaque_version')}".strip(),
        neighbours=tuple(pdi for pdi in texts(report, "switch_pdis") or texts(report, "gpu_pdis") if pdi != NO_PDI),
        chain=_chain(item(source, "chain")),
        rims=tuple(_rim(entry) for entry in items(source, "rims")),
        cells=_cells(source),
        svn=tuple(
            SvnView(
                name=text(entry, "name", "?"),
                minimum=number(entry, "minimum"),
                runtime=number(entry, "runtime"),
                satisfied=flag(entry, "satisfied") is True,
            )
            for entry in items(source, "minimum_svn")
        ),
        checks=checks,
    )


def _chain(source: JsonObject) -> ChainView | None:
    if not source:
        return None
    return ChainView(
        anchor=text(source, "anchor"),
        path_ok=flag(source, "path_ok") is True,
        in_validity=flag(source, "in_validity") is True,
        findings=tuple(
            (number(entry, "position"), text(entry, "rule"), text(entry, "message"))
            for entry in items(source, "findings")
        ),
        certificates=tuple(_certificate(entry) for entry in items(source, "certificates")[:16]),
    )


def _certificate(source: JsonObject) -> CertificateView:
    answer = item(source, "revocation")
    return CertificateView(
        subject=text(source, "subject", "?"),
        serial=text(source, "serial"),
        sha256=text(source, "sha256"),
        not_before=text(source, "not_before"),
        not_after=text(source, "not_after"),
        revocation=RevocationView(
            status=text(answer, "status", "unknown"),
            reason=text(answer, "reason"),
            source=text(answer, "source"),
            nonce=text(answer, "nonce"),
            this_update=text(answer, "this_update"),
            next_update=text(answer, "next_update"),
            responder=common_name(text(answer, "responder")),
            detail=text(answer, "detail"),
        )
        if answer
        else None,
    )


def _rim(source: JsonObject) -> RimView:
    return RimView(
        role=text(source, "role", "?"),
        id=text(source, "id", "?"),
        source=text(source, "source"),
        origin=text(source, "origin"),
        sha256=text(source, "sha256"),
        version=text(source, "version"),
        product=text(source, "product"),
        edition=text(source, "edition"),
        chain=_chain(item(source, "chain")),
    )


def _cells(source: JsonObject) -> tuple[CellView, ...] | None:
    if not isinstance(source.get("measurements"), list):
        return None
    found: dict[int, CellView] = {}
    for entry in items(source, "measurements")[:512]:
        index = number(entry, "index")
        if index is None or not 0 <= index < 512:
            continue
        found[index] = CellView(
            index=index,
            state=text(entry, "state", "unknown"),
            source=text(entry, "source"),
            name=text(entry, "name"),
            golden=texts(entry, "golden")[:16],
            runtime=text(entry, "runtime"),
        )
    return tuple(found[index] for index in sorted(found))
