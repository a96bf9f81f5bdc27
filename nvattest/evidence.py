"""The evidence of one device, and the JSON forms in which evidence travels.

==========  ==========================================================================================
ARRAY       NVIDIA's: ``[{"arch", "nonce", "evidence", "certificate"}]``
ENVELOPE    what ``nvattest collect-evidence`` prints: ``{"evidences": ARRAY}``
NRAS        the body for NVIDIA's service: ``{"nonce", "arch", "evidence_list": [{"evidence", "certificate"}]}``
COCO        Confidential Containers: ``{"device_evidence_list": [{"arch", "uuid", "evidence", "certificate"}]}``
==========  ==========================================================================================

``evidence`` is the base64 of the report and ``certificate`` the base64 of the PEM chain, leaf first. Their schema is
``schemas/evidence-1.json``. Members that a form does not define do no harm; those that are short texts become hints.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from nvattest._json import kind_of, load_json
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.model import NONCE_SIZE, Architecture, DeviceKind

__all__ = ["Evidence", "EvidenceForm", "dump_evidence", "load_evidence", "read_evidence"]

MAXIMUM_TEXT: Final = 16 * 1024 * 1024
MAXIMUM_DEVICES: Final = 64
MAXIMUM_REPORT: Final = 64 * 1024
MAXIMUM_CHAIN: Final = 64 * 1024
_HINTS_MAX: Final = 16
_HINT_SIZE: Final = 256
_DEFINED: Final = frozenset({"arch", "nonce", "evidence", "certificate"})
_UNKNOWN_UUID: Final = "unknown"
# Known to exist, not verified here; told apart only to give NVIDIA's result code for switches.
_OTHER_SWITCHES: Final = frozenset({"SV10", "LR10"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one device gave: ``report`` (SPDM request, response, signature) and ``certificate_chain`` (PEM, leaf first).

    ``nonce`` (32 bytes), ``architecture`` and ``hints`` (uuid, driver version and the like) are what the source says
    beside the report. Nothing signs them; they are only compared with what is signed. ``origin`` names the source.
    """

    architecture: Architecture
    nonce: bytes | None
    report: bytes
    certificate_chain: bytes
    origin: str = "file"
    hints: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def kind(self) -> DeviceKind:
        """GPU or NVSwitch, from the architecture."""
        return self.architecture.kind


class EvidenceForm(Enum):
    """The JSON forms; the value is the name of the list, or empty where the list is all there is."""

    ARRAY = ""
    ENVELOPE = "evidences"
    NRAS = "evidence_list"
    COCO = "device_evidence_list"


def load_evidence(data: bytes | str) -> tuple[Evidence, ...]:
    """Read evidence of 1 to 64 devices in any of the forms, UTF-8, up to 16 MiB.

    Raises:
        ParseError: not JSON, repeated keys, another form, no device, or an item that is wrong; the message names the
            item (from 0) and the key.
    """
    document = load_json(data, source="evidence", maximum=MAXIMUM_TEXT, result_code=ResultCode.EVIDENCE_MALFORMED)
    return read_evidence(document)


def read_evidence(document: object) -> tuple[Evidence, ...]:
    """The same for a document that is parsed already, by a parser that refused repeated keys and bounded its size.

    Raises:
        ParseError: as ``load_evidence``, for everything but the text.
    """
    items: object = document
    shared: dict[str, object] = {}
    if isinstance(document, dict):
        forms = [form for form in EvidenceForm if form.value in document and form is not EvidenceForm.ARRAY]
        if len(forms) != 1:
            names = ", ".join(repr(form.value) for form in EvidenceForm if form.value)
            raise _error(f"expected an array, or an object with exactly one of {names}", "evidence-form")
        items = document[forms[0].value]
        if forms[0] is EvidenceForm.NRAS:
            shared = {key: document[key] for key in ("arch", "nonce") if key in document}
    if not isinstance(items, list):
        raise _error(f"expected an array of devices, found {kind_of(items)}", "evidence-form")
    if not items:
        raise _error("there is no device in it", "no-devices", hint="collect the evidence again, with a device present")
    if len(items) > MAXIMUM_DEVICES:
        raise _error(f"{len(items)} devices, at most {MAXIMUM_DEVICES} are read", "too-many-devices")
    return tuple(_load_item(index, item, shared) for index, item in enumerate(items))


def dump_evidence(items: Sequence[Evidence], *, form: EvidenceForm = EvidenceForm.ARRAY) -> object:
    """The evidence as an object for ``json.dumps``.

    ARRAY and ENVELOPE hold all but ``origin``. NRAS has no place for hints; COCO has none for the nonce nor for hints
    other than ``uuid``.

    Raises:
        InputError: NRAS, and the items are none, or differ in architecture or nonce, or have no nonce.
    """
    if form is EvidenceForm.COCO:
        return {
            form.value: [
                {"arch": item.architecture.value, "uuid": item.hints.get("uuid", _UNKNOWN_UUID)} | _payload(item)
                for item in items
            ]
        }
    if form is EvidenceForm.NRAS:
        pairs = {(item.architecture, item.nonce) for item in items}
        if len(pairs) != 1:
            raise InputError(
                f"this form holds devices of one architecture with one nonce; these have {len(pairs)} combinations",
                code="evidence-form",
                hint="send GPUs and switches apart",
            )
        architecture, nonce = pairs.pop()
        if nonce is None:
            raise InputError("this form needs the nonce", code="evidence-form")
        return {"nonce": nonce.hex(), "arch": architecture.value, form.value: [_payload(item) for item in items]}
    array = [_dump_item(item) for item in items]
    return array if form is EvidenceForm.ARRAY else {form.value: array}


def _dump_item(item: Evidence) -> dict[str, str]:
    hints = {key: value for key, value in item.hints.items() if key not in _DEFINED}
    nonce = {} if item.nonce is None else {"nonce": item.nonce.hex()}
    return {"arch": item.architecture.value, **nonce, **_payload(item), **hints}


def _payload(item: Evidence) -> dict[str, str]:
    return {
        "evidence": base64.b64encode(item.report).decode("ascii"),
        "certificate": base64.b64encode(item.certificate_chain).decode("ascii"),
    }


def _load_item(index: int, item: object, shared: Mapping[str, object]) -> Evidence:
    if not isinstance(item, dict):
        raise _error(f"item {index}: expected an object, found {kind_of(item)}", "evidence-item")
    for key in shared:
        if key in item:
            raise _error(f"item {index}: {key!r} stands both in the item and beside the list", "evidence-item")
    members: dict[str, object] = {**item, **shared}
    return Evidence(
        architecture=_architecture(index, members),
        nonce=_nonce(index, members) if "nonce" in members else None,
        report=_base64(index, members, "evidence", MAXIMUM_REPORT),
        certificate_chain=_base64(index, members, "certificate", MAXIMUM_CHAIN),
        hints=_hints(item),
    )


def _text(index: int, members: Mapping[str, object], key: str) -> str:
    if key not in members:
        raise _error(f"item {index}: {key!r} is missing", "evidence-item")
    value = members[key]
    if not isinstance(value, str):
        raise _error(f"item {index}: {key!r} must be a text, found {kind_of(value)}", "evidence-item")
    return value


def _architecture(index: int, members: Mapping[str, object]) -> Architecture:
    text = _text(index, members, "arch")
    for architecture in Architecture:
        # NVIDIA's tools read the names of GPUs in any case and those of switches only as they are.
        name = text.upper() if architecture.kind is DeviceKind.GPU and text.isascii() else text
        if name == architecture.value:
            return architecture
    raise _error(
        f"item {index}: 'arch' is {text[:40]!r}, expected one of {', '.join(a.value for a in Architecture)}",
        "architecture",
        result_code=(
            ResultCode.SWITCH_ARCHITECTURE_NOT_SUPPORTED
            if text in _OTHER_SWITCHES
            else ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED
        ),
    )


def _nonce(index: int, members: Mapping[str, object]) -> bytes:
    text = _text(index, members, "nonce")
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    # fromhex skips white space, which a nonce does not have.
    if len(digits) == 2 * NONCE_SIZE and digits.isascii() and digits.isalnum():
        try:
            return bytes.fromhex(digits)
        except ValueError:
            pass
    raise _error(f"item {index}: 'nonce' is not {2 * NONCE_SIZE} hexadecimal digits: {text[:80]!r}", "nonce-hex")


def _base64(index: int, members: Mapping[str, object], key: str, maximum: int) -> bytes:
    text = _text(index, members, key)
    if len(text) > (maximum + 2) // 3 * 4:
        raise _error(f"item {index}: {key!r} is larger than {maximum} bytes", "too-large")
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        value = b""
    # Encoding it again refuses what decoders let pass: loose last bits, surplus padding.
    if not value or base64.b64encode(value) != text.encode("ascii"):
        raise _error(
            f"item {index}: {key!r} is empty or not strict base64",
            "base64",
            hint="use the standard alphabet with padding and no line breaks",
        )
    if len(value) > maximum:
        raise _error(f"item {index}: {key!r} has {len(value)} bytes, at most {maximum} are read", "too-large")
    return value


def _hints(item: Mapping[str, object]) -> dict[str, str]:
    # Only what can be shown as it is: no control characters, no lone surrogates, nothing long.
    hints: dict[str, str] = {}
    for key, value in item.items():
        if key in _DEFINED or not isinstance(value, str) or (key == "uuid" and value == _UNKNOWN_UUID):
            continue
        text = key + value
        if len(text) <= _HINT_SIZE and text.isascii() and text.isprintable() and len(hints) < _HINTS_MAX:
            hints[key] = value
    return hints


def _error(
    message: str,
    code: str,
    *,
    offset: int | None = None,
    hint: str = "",
    result_code: ResultCode = ResultCode.EVIDENCE_MALFORMED,
) -> ParseError:
    return ParseError(message, source="evidence", offset=offset, code=code, hint=hint, result_code=result_code)
