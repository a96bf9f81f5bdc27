"""Recipes: what the report data of a CPU's quote has to be, and the nonce of the devices, as data by name.

Each recipe is a class whose fields are its inputs. It says what ties the devices to the guest: a recipe that covers the
device evidence ties this very evidence to the guest's word; one that covers a nonce alone proves only that both were
asked, and who knows the nonce can ask a device elsewhere. No recipe proves attachment.

``nvattest`` is ours (``nvattest.token.binding``), ``coco-rcar`` that of Confidential Containers' handshake
(``nvattest.evidence``). The others were recomputed from what services publish.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, ClassVar, Final, NamedTuple, Protocol, runtime_checkable

from nvattest._documents import load_json
from nvattest._text import base64url, hex_bytes, suggestion
from nvattest.appraisal.guest import DeviceSide, Strength
from nvattest.errors import InputError
from nvattest.evidence import cpu_report_data, device_nonce, device_report_data
from nvattest.token.binding import derive_device_nonce, report_data

_SIZE: Final = 64
_HALF: Final = 32


class Demand(NamedTuple):
    """What a recipe demands of one guest and its devices.

    ``nonce`` is what the devices have to have answered; None where the recipe leaves it to the caller. ``key`` names
    the key that the report data covers, and ``thumbprint`` is its own (RFC 7638) where it signs tokens. ``evidence``
    are the texts of the device evidence that the report data covers; ours covers it by the digest of the devices' side.
    """

    report_data: bytes
    nonce: bytes | None
    strength: Strength
    key: str | None = None
    thumbprint: bytes | None = None
    evidence: tuple[bytes, ...] = ()


@runtime_checkable
class Recipe(Protocol):
    """How report data is computed. ``demand`` raises InputError where an input cannot be used."""

    name: ClassVar[str]

    def demand(self, devices: DeviceSide) -> Demand:
        """What the quote and the devices have to say."""


class _Inputs:
    """The inputs of a recipe: bytes, and texts that UTF-8 can write; anything else is an InputError when it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if type(value).__name__ != item.type:
                found = type(value).__name__
                raise InputError(f"{item.name} is {found}, expected {item.type}", code="recipe-input")
            if isinstance(value, str) and not value.isascii():
                # A text from the command line holds lone surrogates where its bytes are not UTF-8.
                _utf8(item.name, value.encode("utf-8", "surrogatepass"))

    def _check_sizes(self, **sizes: int | tuple[int, ...]) -> None:
        for name, size in sizes.items():
            found, wanted = len(getattr(self, name)), size if isinstance(size, tuple) else (size,)
            if found not in wanted:
                expected = " or ".join(map(str, wanted))
                raise InputError(f"{name} has {found} bytes, expected {expected}", code="recipe-input")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge(_Inputs):
    """Ours: the relying party's challenge, the key that signs the token, and the digest of all device evidence.

    ``key_thumbprint`` (32 bytes) is needed where evidence is verified without a token; with a token it has to be the
    token's.
    """

    name: ClassVar[str] = "nvattest"
    challenge: bytes
    key_thumbprint: bytes = b""

    def demand(self, devices: DeviceSide) -> Demand:
        """Key and evidence. The devices' nonce follows from challenge and key."""
        thumbprint = self.key_thumbprint or devices.key
        if thumbprint is None:
            raise InputError(
                "without a token the recipe needs the thumbprint of the guest's key", code="binding",
                hint="give key_thumbprint, 32 bytes (RFC 7638)",
            )  # fmt: skip
        if devices.digest is None:
            raise InputError("the token names no evidence digest", code="binding-digest")
        covered = report_data(self.challenge, thumbprint, devices.digest)
        nonce = derive_device_nonce(self.challenge, thumbprint).value
        return Demand(covered, nonce, Strength.KEY_AND_EVIDENCE, base64url(thumbprint), thumbprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedReportData(_Inputs):
    """The caller's own recipe: all that is known of it is its result."""

    name: ClassVar[str] = "expected-report-data"
    report_data: bytes

    def demand(self, devices: DeviceSide) -> Demand:
        """Nonce only, where the devices' nonce is one half of the report data; otherwise nothing is known."""
        self._check_sizes(report_data=_SIZE)
        halves = (self.report_data[:_HALF], self.report_data[_HALF:])
        known = devices.nonce is not None and devices.nonce in halves
        return Demand(self.report_data, None, Strength.NONCE_ONLY if known else Strength.NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoRcar(_Inputs):
    """Confidential Containers' RCAR handshake, with SHA-384: SHA-384 of JCS, filled up with zeros.

    ``nonce`` is KBS' text, ``tee_pubkey`` the guest's JWK as JSON, ``additional_evidence`` the text as it was sent.
    """

    name: ClassVar[str] = "coco-rcar"
    nonce: str
    tee_pubkey: str
    additional_evidence: str

    def demand(self, devices: DeviceSide) -> Demand:  # noqa: ARG002 - all is in the handshake
        """Key and evidence."""
        key = load_json(self.tee_pubkey, source="tee_pubkey", maximum=64 * 1024)
        if not isinstance(key, dict):
            raise InputError("tee_pubkey is no JWK", code="recipe-input")
        covered = cpu_report_data(self.nonce, key, self.additional_evidence).ljust(_SIZE, b"\0")
        nonce = device_nonce(device_report_data(self.nonce, key)).value
        name = f"tee-pubkey, SHA-256 {hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}…"
        evidence = (self.additional_evidence.encode(),)
        return Demand(covered, nonce, Strength.KEY_AND_EVIDENCE, name, evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinfoilV3(_Inputs):
    """Tinfoil, version 3: SHA-256 over TLS key, HPKE key, nonce and the digest of the device evidence; then zeros.

    ``gpu`` and ``nvswitch`` are the raw texts of the evidence, byte for byte as they were sent.
    """

    name: ClassVar[str] = "tinfoil-v3"
    nonce: bytes
    tls_key_fp: bytes
    hpke_key: bytes
    gpu: bytes = b""
    nvswitch: bytes = b""

    def demand(self, devices: DeviceSide) -> Demand:  # noqa: ARG002 - all is in the service's answer
        """Key and evidence; without evidence nonce only."""
        self._check_sizes(nonce=_HALF, tls_key_fp=_HALF, hpke_key=_HALF)
        texts = tuple(filter(None, (self.gpu, self.nvswitch)))
        parts = [hashlib.sha256(text).digest() for text in texts]
        digest = hashlib.sha256(b"".join((self.tls_key_fp, self.hpke_key, self.nonce, *parts))).digest()
        strength = Strength.KEY_AND_EVIDENCE if texts else Strength.NONCE_ONLY
        key = f"TLS {self.tls_key_fp.hex()}"
        return Demand(digest.ljust(_SIZE, b"\0"), self.nonce, strength, key, evidence=texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressNonce(_Inputs):
    """An account's address (20 bytes, filled up to 32 with zeros), then the nonce: older dstack proxies and others."""

    name: ClassVar[str] = "address-nonce"
    nonce: bytes
    signing_address: bytes

    def demand(self, devices: DeviceSide) -> Demand:  # noqa: ARG002 - all is in the service's answer
        """Nonce only: key and nonce are covered, no evidence is."""
        self._check_sizes(nonce=_HALF, signing_address=20)
        covered = self.signing_address.ljust(_HALF, b"\0") + self.nonce
        return Demand(covered, self.nonce, Strength.NONCE_ONLY, key=f"address {self.signing_address.hex()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Near(_Inputs):
    """SHA-256 over the signing key's address (20 or 32 bytes) and the TLS certificate's fingerprint; then the nonce."""

    name: ClassVar[str] = "near"
    nonce: bytes
    signing_address: bytes
    tls_cert_fingerprint: bytes

    def demand(self, devices: DeviceSide) -> Demand:  # noqa: ARG002 - all is in the service's answer
        """Nonce only: keys and nonce are covered, no evidence is."""
        self._check_sizes(nonce=_HALF, signing_address=(20, 32), tls_cert_fingerprint=_HALF)
        digest = hashlib.sha256(self.signing_address + self.tls_cert_fingerprint).digest()
        key = f"address {self.signing_address.hex()}, TLS {self.tls_cert_fingerprint.hex()}"
        return Demand(digest + self.nonce, self.nonce, Strength.NONCE_ONLY, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chutes(_Inputs):
    """SHA-256 over two texts (nonce as hexadecimal digits, key as base64), which the devices answer; then SHA-256 of
    the TLS key (SubjectPublicKeyInfo, DER).
    """

    name: ClassVar[str] = "chutes"
    nonce: bytes
    e2e_pubkey: str
    tls_spki: bytes

    def demand(self, devices: DeviceSide) -> Demand:  # noqa: ARG002 - all is in the service's answer
        """Nonce only: keys and nonce are covered, no evidence is. The devices' nonce is the first half."""
        self._check_sizes(nonce=_HALF)
        first = hashlib.sha256((self.nonce.hex() + self.e2e_pubkey).encode()).digest()
        second = hashlib.sha256(self.tls_spki).digest()
        return Demand(first + second, first, Strength.NONCE_ONLY, key=f"TLS {second.hex()}")


RECIPES: Final[Mapping[str, type[Any]]] = {
    recipe.name: recipe for recipe in (Challenge, ExpectedReportData, CocoRcar, TinfoilV3, AddressNonce, Near, Chutes)
}
# Those whose inputs are given by name at the shell; the first two have options of their own.
NAMED: Final = tuple(RECIPES)[2:]


def recipe_from_inputs(name: str, inputs: Mapping[str, str | bytes]) -> Recipe:
    """A recipe from named inputs: bytes as they are, a text as it is or, where bytes are wanted, hexadecimal digits.

    Raises:
        InputError: an unknown recipe or input, one missing, or one that is not hexadecimal (code ``recipe-input``).
    """
    if name not in NAMED:
        raise InputError(f"no recipe is called {name[:80]!r}", code="recipe-input", hint=suggestion(name, NAMED))
    kind = RECIPES[name]
    declared = {item.name: item for item in fields(kind)}
    for unknown in inputs.keys() - declared.keys():
        raise InputError(
            f"the recipe {name} has no input {unknown[:80]!r}", code="recipe-input", hint=f"its inputs: {_listed(kind)}"
        )
    for item in declared.values():
        if item.name not in inputs and item.default is MISSING:
            needed = f"the recipe {name} needs the input {item.name}"
            raise InputError(needed, code="recipe-input", hint=f"its inputs: {_listed(kind)}")
    made: Recipe = kind(**{key: _read(declared[key], value) for key, value in inputs.items()})
    return made


def _listed(kind: type[Any]) -> str:
    return ", ".join(item.name + ("" if item.default is MISSING else " (optional)") for item in fields(kind))


def _read(item: Field[Any], value: str | bytes) -> str | bytes:
    if item.type == "str":
        return _utf8(item.name, value) if isinstance(value, bytes) else value
    if isinstance(value, bytes):
        return value
    data = hex_bytes(value)
    if data is None:
        raise InputError(f"{item.name} is not hexadecimal: {value[:80]!r}", code="recipe-input")
    return data


def _utf8(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InputError(f"{name} is not UTF-8", code="recipe-input") from None
