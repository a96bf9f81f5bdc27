"""The evidence of one device, and the JSON forms in which evidence travels.

==========  ==========================================================================================
ARRAY       NVIDIA's: ``[{"arch", "nonce", "evidence", "certificate"}]``
ENVELOPE    what ``nvattest collect-evidence`` prints: ``{"evidences": ARRAY}``
NRAS        the body for NVIDIA's service: ``{"nonce", "arch", "evidence_list": [{"evidence", "certificate"}]}``
COCO        Confidential Containers: ``{"device_evidence_list": [{"arch", "uuid", "evidence", "certificate"}]}``
==========  ==========================================================================================

``evidence`` is the base64 (or the hexadecimal digits, as Trustee takes both) of the report and ``certificate`` the
base64 of the PEM chain, leaf first. Their schema is ``schemas/evidence-1.json``. Members that a form does not define do
no harm; those that are short texts become hints.

Read, and never written, is NVIDIA's CMW collection (conceptual message wrappers, draft-ietf-rats-msg-wrap):
``{"__cmwc_t", "nonce", LABEL: {"__cmwc_t", "evidence", "certificate", "nonce", "hints"}}``, where each record is
``[media type, base64url]``. Its items name no architecture; that of their certificates is taken.

An object of another kind may hold evidence: services put it beside a CPU's quote, also as JSON inside a text. It is
found there if the object holds it once, and ``Evidence.origin`` names the member.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Final

from nvattest._documents import JsonObject, canonical_json, kind_of, load_json
from nvattest._text import base64_bytes, hex_bytes
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.model import NONCE_SIZE, Architecture, DeviceKind, Nonce, counted

MAXIMUM_TEXT: Final = 16 * 1024 * 1024
MAXIMUM_DEVICES: Final = 64
MAXIMUM_REPORT: Final = 64 * 1024
MAXIMUM_CHAIN: Final = 64 * 1024
_HINTS_MAX: Final = 16
_HINT_SIZE: Final = 256
_DEFINED: Final = frozenset({"arch", "nonce", "evidence", "certificate"})
_UNKNOWN_UUID: Final = "unknown"
# SPDM 1.1, GET_MEASUREMENTS: the hexadecimal form of every report begins with this, the base64 form of none does.
_HEX_REPORT: Final = "11e0"

_COCO_TEE: Final = "nvidia"
_REPORT_DATA_MAX: Final = 64

_CMW_TYPE: Final = "__cmwc_t"
_CMW_COLLECTION: Final = "tag:nvidia.com,2026:verifier-input/profiles/base/"
_CMW_ITEM: Final = "tag:nvidia.com,2026:evidence-item/v1"
_CMW_BESIDE: Final = frozenset({_CMW_TYPE, "nonce", "appraisal-settings"})
_CMW_MEDIA: Final = {
    "evidence": "application/vnd.nvidia.spdm-measurement-transcript",
    "certificate": "application/vnd.nvidia.pem-cert-chain",
    "nonce": "application/octet-stream",
    "hints": "application/json",
}

_KNOWN: Final = ", ".join(architecture.value for architecture in Architecture)
# How deep evidence may be inside another document; the deepest one seen is at 3.
_SEARCH_DEPTH: Final = 8
_MEMBERS_SHOWN: Final = 12
# Other NVSwitches: not verified here, known only to give NVIDIA's result code for switches.
_OTHER_SWITCHES: Final = frozenset({"SV10", "LR10"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one device gave: ``report`` (SPDM request, response, signature) and ``certificate_chain`` (PEM, leaf first).

    ``nonce`` (32 bytes), ``architecture`` and ``hints`` (uuid, driver version and the like) are what the source says
    beside the report. Nothing signs them; they are only compared with signed values. ``origin`` names the source and
    how it was read.

    A driver gives the chain in a buffer, and collectors hand on the whole buffer: NUL bytes after the text are dropped
    here, wherever the evidence comes from.
    """

    architecture: Architecture
    nonce: bytes | None
    report: bytes
    certificate_chain: bytes
    origin: str = "file"
    hints: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        text = self.certificate_chain.rstrip(b"\0")
        dropped = len(self.certificate_chain) - len(text)
        if dropped:
            object.__setattr__(self, "certificate_chain", text)
            object.__setattr__(self, "origin", f"{self.origin}, {counted(dropped, 'NUL byte')} after the chain dropped")

    def __repr__(self) -> str:
        sizes = f"report of {len(self.report)} bytes, chain of {len(self.certificate_chain)}"
        return f"<Evidence {self.architecture.value} from {self.origin[:120]!r}: {sizes}>"

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


_LISTS: Final = tuple(form.value for form in EvidenceForm if form.value)


def load_evidence(data: bytes | str | Mapping[str, object] | Sequence[object]) -> tuple[Evidence, ...]:
    """Read evidence of 1 to 64 devices in any of the forms: text or its JSON.

    Text has up to 16 MiB of UTF-8, or UTF-16 with a byte order mark.

    Raises:
        ParseError: not JSON, repeated keys, another form, no device, or an item that is wrong; the message names the
            item (from 0) and the key.
    """
    return read_evidence(_json(data, "evidence") if isinstance(data, bytes | str) else data)


def read_evidence(document: object) -> tuple[Evidence, ...]:
    """The same for a document that is parsed already, by a parser that refused repeated keys and bounded its size."""
    origin = "file"
    if isinstance(document, dict) and not document.keys() & {_CMW_TYPE, *_LISTS}:
        member, document = _inside(document)
        origin = f"file, member {member[:160]!r}"
    shared: JsonObject = {}
    if isinstance(document, dict):
        if _CMW_TYPE in document:
            return _load_collection(document, origin)
        names = [name for name in _LISTS if name in document]
        if len(names) != 1:
            raise _error(f"expected one list of devices, found {' and '.join(map(repr, names))}", "evidence-form")
        if names == [EvidenceForm.NRAS.value]:
            shared = {key: document[key] for key in _READERS if key in document}
        document = document[names[0]]
    if not isinstance(document, list):
        raise _error(f"expected an array of devices, found {kind_of(document)}", "evidence-form")
    _check_count(len(document))
    return tuple(_load_item(f"item {index}", item, shared, origin) for index, item in enumerate(document))


def _check_count(devices: int) -> None:
    if not devices:
        raise _error("there is no device in it", "no-devices", hint="collect the evidence again, with a device present")
    if devices > MAXIMUM_DEVICES:
        raise _error(f"{devices} devices, at most {MAXIMUM_DEVICES} are read", "too-many-devices")


def _json(data: bytes | str, source: str) -> object:
    return load_json(data, source=source, maximum=MAXIMUM_TEXT, result_code=ResultCode.EVIDENCE_MALFORMED, file=True)


# --- evidence inside another document ---------------------------------------------------------------------------------


def _inside(document: JsonObject) -> tuple[str, object]:
    """The one member that holds evidence, by its path, and what it holds; none or several are refused by name."""
    found = list(_search(document, "", 0))
    if len(found) == 1:
        return found[0]
    if found:
        seen = _listed([path for path, _ in found])
        raise _error(f"evidence in {len(found)} members: {seen}", "evidence-form", hint="give one of them alone")
    raise _error(
        f"expected an array, an object with one of {', '.join(map(repr, _LISTS))}, or one member that holds such; "
        f"found the members {_listed(document) or 'of none'}",
        "evidence-form",
        hint="give the output of collect-evidence, or the part of this document that holds evidence",
    )


def _search(value: object, path: str, depth: int) -> Iterator[tuple[str, object]]:
    if depth > _SEARCH_DEPTH:
        return
    # Every form has this member in its items; another text is not worth reading as JSON.
    if isinstance(value, str) and '"evidence"' in value and depth < _SEARCH_DEPTH:
        with suppress(ParseError):
            value, depth = _json(value, path), depth + 1
    if isinstance(value, dict):
        lists = [name for name in _LISTS if isinstance(value.get(name), list)]
        if lists or isinstance(value.get(_CMW_TYPE), str):
            yield ".".join((path, *lists[:1])), value
            return
        if path and all(isinstance(value.get(key), str) for key in ("evidence", "certificate")):
            yield path, [value]
            return
        for key, item in value.items():
            # Cut: a name may have megabytes, and every path below repeats it. A program's object may have other keys.
            name = str(key)[:80]
            yield from _search(item, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list):
        if any(isinstance(item, dict) and {"evidence", "certificate"} <= item.keys() for item in value):
            yield path, value
            return
        for index, item in enumerate(value):
            yield from _search(item, f"{path}[{index}]", depth + 1)


def _listed(names: Collection[object]) -> str:
    """Names from the document, few and short enough for a message."""
    shown = ", ".join(repr(str(name)[:80]) for name in islice(names, _MEMBERS_SHOWN))
    more = len(names) - _MEMBERS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


# --- NVIDIA's CMW collection ------------------------------------------------------------------------------------------


def _load_collection(document: JsonObject, origin: str) -> tuple[Evidence, ...]:
    kind = document[_CMW_TYPE]
    if not isinstance(kind, str) or not kind.startswith(_CMW_COLLECTION):
        raise _error(f"a CMW collection of type {str(kind)[:80]!r}; expected {_CMW_COLLECTION}…", "evidence-form")
    labels = [key for key in document if key not in _CMW_BESIDE]
    _check_count(len(labels))
    shared = _record("the collection", document, "nonce") if "nonce" in document else None
    return tuple(_load_wrapped(label, document[label], shared, origin) for label in labels)


def _load_wrapped(label: str, item: object, shared: bytes | None, origin: str) -> Evidence:
    where = f"item {label[:80]!r}"
    if not isinstance(item, dict) or item.get(_CMW_TYPE) != _CMW_ITEM:
        raise _error(f"{where}: not an evidence item ({_CMW_ITEM})", "evidence-item")
    nonce = _record(where, item, "nonce") if "nonce" in item else shared
    if nonce is not None and len(nonce) != NONCE_SIZE:
        raise _error(f"{where}: 'nonce' has {len(nonce)} bytes, expected {NONCE_SIZE}", "nonce-hex")
    if shared is not None and nonce != shared:
        raise _differs(where, "nonce", nonce.hex() if nonce else "", shared.hex())
    chain = _record(where, item, "certificate")
    hints = _json(_record(where, item, "hints"), f"{where}: 'hints'") if "hints" in item else {}
    return Evidence(
        architecture=_architecture_of_chain(where, chain),
        nonce=nonce,
        report=_record(where, item, "evidence"),
        certificate_chain=chain,
        origin=f"{origin}, CMW {where}",
        hints=_hints(hints) if isinstance(hints, dict) else {},
    )


def _record(where: str, item: JsonObject, key: str) -> bytes:
    record, media = item.get(key), _CMW_MEDIA[key]
    if not isinstance(record, list) or len(record) != 2 or not all(isinstance(part, str) for part in record):
        raise _error(f"{where}: {key!r} is missing or not [media type, base64url]", "evidence-item")
    if record[0] != media:
        raise _error(f"{where}: {key!r} is of type {record[0][:80]!r}, expected {media!r}", "evidence-item")
    return _decoded(where, key, record[1], url=True)


def _architecture_of_chain(where: str, chain: bytes) -> Architecture:
    # Imported here: only this form needs the certificates to know the architecture.
    from nvattest.pki.certificate import parse_pem_chain
    from nvattest.pki.dice import architecture_of_chip, chip_of_chain

    try:
        chip = chip_of_chain(parse_pem_chain(chain.rstrip(b"\0")))
    except ParseError as error:
        raise _error(f"{where}: 'certificate': {error}", "evidence-item") from error
    architecture = architecture_of_chip(chip) if chip is not None else None
    if architecture is None:
        raise _error(
            f"{where}: its certificates are of {chip or 'no one chip'}, expected a chip of {_KNOWN}",
            "architecture",
            result_code=ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED,
        )
    return architecture


# --- writing ----------------------------------------------------------------------------------------------------------


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


# --- Confidential Containers ------------------------------------------------------------------------------------------
#
# In the RCAR handshake of KBS the guest computes two digests over canonical JSON (JCS, RFC 8785):
#
# 1. ``device_report_data`` = SHA-384 of ``{"nonce", "tee-pubkey"}``: the report data of the devices. A GPU answers its
#    first 32 bytes (``device_nonce``).
# 2. ``cpu_report_data`` = SHA-384 of ``{"additional-evidence", "nonce", "tee-pubkey"}``: the report data of the CPU. So
#    the CPU's quote covers the exact text of the device evidence (``additional_evidence``), which is sent unchanged.
#
# ``tee-pubkey`` is the JWK that the guest made for this handshake, ``nonce`` the text that KBS sent.


def device_nonce(report_data: bytes) -> Nonce:
    """The nonce that guest-components give to a GPU: the first 32 of 1 to 64 bytes, shorter data filled with zeros."""
    if not 0 < len(report_data) <= _REPORT_DATA_MAX:
        raise InputError(
            f"report data of {len(report_data)} bytes, expected 1 to {_REPORT_DATA_MAX}",
            code="report-data",
            hint="give the digest over the runtime data, 48 bytes for SHA-384",
        )
    return Nonce(report_data[:NONCE_SIZE].ljust(NONCE_SIZE, b"\0"))


def attester_json(evidence: Sequence[Evidence]) -> str:
    """The JSON text of the attester: ``{"device_evidence_list": [...]}``, keys sorted, no white space."""
    document = dump_evidence(evidence, form=EvidenceForm.COCO)
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def additional_evidence(evidence: Sequence[Evidence]) -> str:
    """The additional evidence of the handshake, byte for byte as it is hashed and sent; empty without a device."""
    return f'{{"{_COCO_TEE}":{attester_json(evidence)}}}' if evidence else ""


def device_report_data(nonce: str, tee_pubkey: Mapping[str, object]) -> bytes:
    """The 48 bytes that the devices' evidence is bound to: SHA-384 over the runtime data, which JCS must express."""
    return hashlib.sha384(canonical_json({"nonce": nonce, "tee-pubkey": tee_pubkey})).digest()


def cpu_report_data(nonce: str, tee_pubkey: Mapping[str, object], additional: str) -> bytes:
    """The 48 bytes that the CPU's quote is bound to; ``additional`` is the text of ``additional_evidence``."""
    document = {"additional-evidence": additional, "nonce": nonce, "tee-pubkey": tee_pubkey}
    return hashlib.sha384(canonical_json(document)).digest()


# --- one item ---------------------------------------------------------------------------------------------------------


def _load_item(where: str, item: object, shared: JsonObject, origin: str) -> Evidence:
    if not isinstance(item, dict):
        raise _error(f"{where}: expected an object, found {kind_of(item)}", "evidence-item")
    members: JsonObject = {**shared, **item}
    architecture = _architecture(where, members)
    nonce = _nonce(where, members) if "nonce" in members else None
    # Callers of NVIDIA's service repeat these in the items, and the service takes such a body.
    for key, given in shared.items():
        if _READERS[key](where, shared) != (architecture if key == "arch" else nonce):
            raise _differs(where, key, members[key], given)
    repeated = [key for key in shared if key in item]
    report = _text(where, members, "evidence")
    is_hex = report[:4].lower() == _HEX_REPORT and len(report) <= 2 * MAXIMUM_REPORT
    return Evidence(
        architecture=architecture,
        nonce=nonce,
        report=(is_hex and hex_bytes(report)) or _decoded(where, "evidence", report),
        certificate_chain=_decoded(where, "certificate", _text(where, members, "certificate")),
        origin=f"{origin}, {' and '.join(repeated)} given twice and alike" if repeated else origin,
        hints=_hints(item),
    )


def _differs(where: str, key: str, inside: object, beside: object) -> ParseError:
    return _error(
        f"{where}: {key!r} is {str(inside)[:80]!r} in the item and {str(beside)[:80]!r} beside the list",
        "evidence-item",
        hint="evidence of several collections was put together; collect it again",
    )


def _text(where: str, members: JsonObject, key: str) -> str:
    if key not in members:
        raise _error(f"{where}: {key!r} is missing", "evidence-item")
    value = members[key]
    if not isinstance(value, str):
        raise _error(f"{where}: {key!r} must be a text, found {kind_of(value)}", "evidence-item")
    return value


def _architecture(where: str, members: JsonObject) -> Architecture:
    text = _text(where, members, "arch")
    for architecture in Architecture:
        # NVIDIA's tools read the names of GPUs in any case and those of switches only as they are.
        name = text.upper() if architecture.kind is DeviceKind.GPU and text.isascii() else text
        if name == architecture.value:
            return architecture
    code = ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED
    if text in _OTHER_SWITCHES:
        code = ResultCode.SWITCH_ARCHITECTURE_NOT_SUPPORTED
    raise _error(f"{where}: 'arch' is {text[:40]!r}, expected one of {_KNOWN}", "architecture", result_code=code)


def _nonce(where: str, members: JsonObject) -> bytes:
    text = _text(where, members, "nonce")
    # The length first: a text may have megabytes.
    nonce = hex_bytes(text) if len(text) <= 2 * NONCE_SIZE + 2 else None
    if nonce is not None and len(nonce) == NONCE_SIZE:
        return nonce
    raise _error(f"{where}: 'nonce' is not {2 * NONCE_SIZE} hexadecimal digits: {text[:80]!r}", "nonce-hex")


# What the list of NRAS has once for all its items.
_READERS: Final[Mapping[str, Callable[[str, JsonObject], object]]] = {"arch": _architecture, "nonce": _nonce}


def _decoded(where: str, key: str, text: str, *, url: bool = False) -> bytes:
    """The bytes of strict base64, or with ``url`` of base64url without padding; neither none nor too many."""
    maximum = MAXIMUM_REPORT if key == "evidence" else MAXIMUM_CHAIN
    if len(text) > (maximum + 2) // 3 * 4:
        raise _error(f"{where}: {key!r} is larger than {maximum} bytes", "too-large")
    try:
        value = base64_bytes(text, url=url)
    except ValueError:
        value = b""
    if not value:
        form = "base64url without padding" if url else "strict base64"
        hint = "" if url else "use the standard alphabet with padding and no line breaks"
        raise _error(f"{where}: {key!r} is empty or not {form}", "base64", hint=hint)
    if len(value) > maximum:
        raise _error(f"{where}: {key!r} has {len(value)} bytes, at most {maximum} are read", "too-large")
    return value


def _hints(item: JsonObject) -> dict[str, str]:
    # Only short printable ASCII, which can be shown as it is.
    hints: dict[str, str] = {}
    for key, given in item.items():
        if key in _DEFINED or not isinstance(given, str) or (key == "uuid" and given == _UNKNOWN_UUID):
            continue
        value = given.rstrip("\0")  # from a driver's buffer, as the chain
        text = key + value
        if len(text) <= _HINT_SIZE and text.isascii() and text.isprintable() and len(hints) < _HINTS_MAX:
            hints[key] = value
    return hints


def _error(
    message: str, code: str, *, hint: str = "", result_code: ResultCode = ResultCode.EVIDENCE_MALFORMED
) -> ParseError:
    return ParseError(message, source="evidence", code=code, hint=hint, result_code=result_code)
