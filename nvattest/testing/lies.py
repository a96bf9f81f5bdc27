"""What a simulated platform can be told to lie about, and how each lie is spelled: ``gpu0:measurement=9``.

A lie is ``TARGET:NAME`` or ``TARGET:NAME=ARGUMENT``. Targets are ``gpu<N>``, ``switch<N>``, ``gpu*``, ``switch*``,
``driver-rim``, ``vbios-rim``, ``bios-rim``, ``rim*``, ``platform`` and ``guest``. Positions count in a chain of
certificates from the leaf, 0. Measurement indices are golden indices: index i is SPDM block i + 1.

A certificate or a RIM that several devices share lies to all of them: revoking position 2 of ``gpu0`` revokes the
provisioner of every GPU.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from nvattest._text import with_suggestion
from nvattest.errors import InputError


class Scope(Enum):
    """Which targets can tell a lie."""

    DEVICE = "device"
    RIM = "rim"
    PLATFORM = "platform"
    GUEST = "guest"


class _Form(Enum):
    """What the argument of a lie has to look like."""

    NONE = ""
    INDEX = r"\d{1,5}"
    INDEX_HEX = r"\d{1,5}(,([0-9a-fA-F]{2}){0,4096})?"
    POSITION = r"[0-7]"
    POSITION_WORD = r"[0-7](,[A-Za-z]{1,32})?"
    HEX = r"([0-9a-fA-F]{2}){1,4096}"
    TEXT = r"[\x20-\x7e]{1,128}"
    DEVICE = r"(gpu|switch)\d{1,2}"
    WORD = r"[a-z0-9-]{1,32}"
    LETTERS = r"[A-Za-z]{1,64}"
    TOPOLOGY = r"foreign|missing|extra"
    FLAG = r"debug|notSecure|recovery"
    TRICK = r"dtd|entity|comment|instruction|key-value|second-signature|reference|transform|digest|truncated"


@dataclass(frozen=True, slots=True)
class LieSpec:
    """One entry of the vocabulary.

    ``argument`` is its form for people, with ``[]`` where it may be left out; ``check`` is what has to see the
    lie ("" where it depends on the argument or where the lie is only a variant); :meth:`check_of` gives its full id.
    ``only`` is the one kind of guest that can tell it: ``tdx`` or ``snp``.
    """

    scopes: frozenset[Scope]
    name: str
    argument: str
    form: _Form
    check: str
    meaning: str
    only: str = ""

    @property
    def optional(self) -> bool:
        """Whether the argument may be left out."""
        return self.argument.startswith("[")

    def check_of(self, target: str) -> str:
        """The id of the check that has to see the lie when ``target`` tells it; ``rim*`` stands for the driver RIM."""
        if _scope(target) is not Scope.RIM:
            return self.check
        role = "driver" if target == "rim*" else target.partition("-")[0]
        word = re.sub("^chain-", "rim-", self.check).replace("rim-path", "rim-chain")
        return f"{role}-{word}" if word.startswith("rim-") and word != "rim-conflict" else word

    def accepts(self, argument: str | None) -> bool:
        """Whether the argument has the right form."""
        if argument is None:
            return self.optional or self.form is _Form.NONE
        return self.form is not _Form.NONE and re.fullmatch(self.form.value, argument) is not None


@dataclass(frozen=True, slots=True)
class Lie:
    """One lie; ``str`` gives its spelling back.

    Raises:
        InputError: an unknown target or name, or an argument of the wrong form.
    """

    target: str
    name: str
    argument: str | None = None

    def __post_init__(self) -> None:
        scope = _scope(self.target)
        if scope is None:
            raise InputError(
                f"a simulated platform has no target named {self.target[:40]!r}",
                code="fault-target",
                hint="targets are gpu<N>, switch<N>, gpu*, switch*, driver-rim, vbios-rim, bios-rim, rim*, platform,"
                " guest",
            )
        if (self.name, scope) not in _BY_NAME:
            known = tuple(item.name for item in (*LIES, *GUEST_LIES) if scope in item.scopes)
            raise InputError(
                f"{self.target} cannot lie about {self.name[:40]!r}",
                code="fault-name",
                hint=with_suggestion(self.name, known, f"it can tell: {', '.join(known)}"),
            )
        if not self.spec.accepts(self.argument):
            raise InputError(
                f"the lie {self.name!r} cannot have the argument {(self.argument or '')[:80]!r}",
                code="fault-argument",
                hint=f"write it as {self.target}:{self.name}{self.spec.argument and '='}{self.spec.argument}",
            )

    @property
    def spec(self) -> LieSpec:
        """Its entry of the vocabulary."""
        return _BY_NAME[self.name, _scope(self.target)]

    @property
    def position(self) -> int | None:
        """The position in a chain that it is about; None for lies about other things."""
        positioned = self.spec.form in (_Form.POSITION, _Form.POSITION_WORD)
        return int(self.argument[0]) if positioned and self.argument else None

    @property
    def check(self) -> str:
        """The id of the check that has to see it, or "" where none is known."""
        return self.spec.check_of(self.target)

    def __str__(self) -> str:
        return f"{self.target}:{self.name}" + ("" if self.argument is None else f"={self.argument}")


def parse_fault(text: str) -> Lie:
    """Read one lie from its spelling, such as ``gpu0:measurement=9`` or ``driver-rim:missing``.

    Raises:
        InputError: not such a text; the hint lists what can be said.
    """
    target, colon, rest = text.strip().partition(":")
    if not colon:
        known = (item.name for item in (*LIES, *GUEST_LIES))
        raise InputError(
            f"not a fault: {text[:80]!r}",
            code="fault",
            hint=with_suggestion(
                text.partition("=")[0], known, "write TARGET:NAME or TARGET:NAME=ARGUMENT, as gpu0:fwid"
            ),
        )
    name, equals, argument = rest.partition("=")
    return Lie(target, name, argument if equals else None)


class Told:
    """The lies that one device, one RIM or the platform has to tell."""

    def __init__(self, lies: Iterable[Lie]) -> None:
        self._lies = tuple(lies)

    @classmethod
    def by(cls, lies: Iterable[Lie], *targets: str) -> Told:
        """Those of these targets."""
        return cls(lie for lie in lies if lie.target in targets)

    def __contains__(self, name: str) -> bool:
        return any(lie.name == name for lie in self._lies)

    def get(self, name: str, default: str = "") -> str | None:
        """The argument of this lie: ``default`` where it was told without one, None where it is not told."""
        for lie in self._lies:
            if lie.name == name:
                return default if lie.argument is None else lie.argument
        return None

    def all(self, name: str) -> list[str]:
        """The arguments of this lie, which may be told several times."""
        return [lie.argument or "" for lie in self._lies if lie.name == name]

    def indexed(self, name: str) -> dict[int, str]:
        """Arguments of the form ``N`` or ``N,REST``, as N → REST."""
        pairs = (argument.partition(",") for argument in self.all(name) if argument)
        return {int(number): rest for number, _, rest in pairs}

    def on_the_way(self, data: bytes, *, signature: range) -> bytes:
        """What becomes of signed bytes between a device and its verifier; ``signature`` is where the signature is."""
        out = bytearray(data)
        if (place := self.get("signature", "0")) is not None:
            out[signature[int(place) % len(signature)]] ^= 0x01
        for argument in self.all("tamper"):
            out[int(argument) % len(out)] ^= 0x01
        if (count := self.get("truncate")) is not None:
            del out[max(len(out) - int(count), 0) :]
        return bytes(out) + bytes.fromhex(self.get("trailing") or "")


def must_find(name: str, numbers: Iterable[int], present: Collection[int], what: str) -> None:
    """Refuse a lie about things that are not there: it would change nothing, and a test with it would prove nothing.

    Raises:
        InputError: one of the ``numbers`` that the lie ``name`` is about is not ``present``.
    """
    for number in numbers:
        if number not in present:
            raise InputError(
                f"there is no {what} {number}: {name}={number} would change nothing",
                code="fault-argument",
                hint=f"there are {', '.join(map(str, sorted(present)))}",
            )


def _scope(target: str) -> Scope | None:
    if re.fullmatch(r"(gpu|switch)(\d{1,2}|\*)", target):
        return Scope.DEVICE
    if target in ("driver-rim", "vbios-rim", "bios-rim", "rim*"):
        return Scope.RIM
    return {"platform": Scope.PLATFORM, "guest": Scope.GUEST}.get(target)


_D, _R = frozenset({Scope.DEVICE}), frozenset({Scope.RIM})
_P, _G = frozenset({Scope.PLATFORM}), frozenset({Scope.GUEST})
_DR = _D | _R
_F = _Form


# fmt: off
LIES: tuple[LieSpec, ...] = (
    # What the device itself says and signs.
    LieSpec(_D, "measurement", "INDEX[,HEX]", _F.INDEX_HEX, "measurements", "measures another value at this index"),
    LieSpec(_D, "measurement-missing", "INDEX", _F.INDEX, "measurements", "leaves this measurement block out"),
    LieSpec(_D, "measurement-duplicate", "INDEX", _F.INDEX, "report-format", "sends this measurement block twice"),
    LieSpec(_D, "field", "ID[,HEX]", _F.INDEX_HEX, "", "says this in opaque entry ID (without HEX: bytes turned over)"),
    LieSpec(_D, "field-missing", "ID", _F.INDEX, "", "leaves opaque entry ID out"),
    LieSpec(_D, "field-duplicate", "ID", _F.INDEX, "report-format", "sends opaque entry ID twice"),
    LieSpec(_D, "driver-version", "TEXT", _F.TEXT, "driver-rim-available", "signs another driver version"),
    LieSpec(_D, "firmware-version", "TEXT", _F.TEXT, "", "signs another VBIOS (aa.bb.cc.dd.ee) or switch BIOS version"),
    LieSpec(_D, "nvdec0", "on|off|HEX", _F.WORD, "", "reports its NVDEC0 engine on (AA), off (55), or this byte"),
    LieSpec(_D, "fwid", "[HEX]", _F.HEX, "fwid", "reports a firmware id that its certificate does not name"),
    LieSpec(_D, "feature", "mpt|spt|ppcie|NUMBER", _F.WORD, "", "reports another mode"),
    LieSpec(_D, "svn", "NUMBER", _F.INDEX, "minimum-svn", "reports this FSP security version number"),
    LieSpec(_D, "opaque-version", "MAJOR", _F.INDEX, "report-format", "claims this major version of the opaque data"),
    LieSpec(_D, "opaque-profile", "NUMBER", _F.INDEX, "report-format", "claims this profile of the opaque data"),
    LieSpec(_D, "spdm-version", "HEX", _F.HEX, "report-format", "answers in this SPDM version (12 is 1.2)"),
    LieSpec(_D, "topology", "[foreign|missing|extra]", _F.TOPOLOGY, "topology", "names a wrong neighbour"),
    LieSpec(_D, "unlocked", "", _F.NONE, "topology", "a switch that says that it is not locked (entry 25)"),
    LieSpec(_D, "debug", "[FLAG]", _F.FLAG, "debug",
         "states a DICE flag (Blackwell: debug, notSecure, recovery), else index 9 differs"),
    LieSpec(_D, "other-nonce", "[HEX]", _F.HEX, "nonce", "answers another nonce than the one it was asked"),
    # What happens to a report on its way.
    LieSpec(_D, "signature", "[BYTE]", _F.INDEX, "report-signature", "turns over one byte of the signature"),
    LieSpec(_D, "signature-zero", "", _F.NONE, "report-signature", "has a signature of r = s = 0"),
    LieSpec(_D, "wrong-key", "", _F.NONE, "report-signature", "signs with a key that no certificate is about"),
    LieSpec(_D, "tamper", "OFFSET", _F.INDEX, "", "turns over the byte of the report at this offset, after signing"),
    LieSpec(_D, "truncate", "BYTES", _F.INDEX, "report-format", "cuts this many bytes off the end of the report"),
    LieSpec(_D, "trailing", "HEX", _F.HEX, "report-trailing-bytes", "adds bytes after the signature"),
    # Its certificates.
    LieSpec(_D, "chain-of", "DEVICE", _F.DEVICE, "report-signature", "shows the chain of another device"),
    LieSpec(_D, "chain-missing", "POSITION", _F.POSITION, "chain-path", "leaves this certificate out of the chain"),
    LieSpec(_D, "chain-swapped", "POSITION", _F.POSITION, "chain-path", "swaps this certificate with the next one"),
    LieSpec(_D, "chain-repeated", "POSITION", _F.POSITION, "chain-path", "shows this certificate twice"),
    LieSpec(_D, "chain-format", "", _F.NONE, "chain-format", "sends text that is no PEM"),
    LieSpec(_D, "chain-nuls", "[COUNT]", _F.INDEX, "", "counts NUL bytes (5) after the PEM text, as real drivers do"),
    LieSpec(_D, "fwid-extension", "[HEX]", _F.HEX, "fwid", "has a leaf without FWID extension, or with this content"),
    LieSpec(_D, "chip", "NAME", _F.TEXT, "architecture", "has certificates of another chip, as GB100"),
    LieSpec(_D, "leaf-chip", "NAME", _F.TEXT, "architecture", "has a leaf of another chip than its BROM"),
    LieSpec(_D, "pdi", "HEX", _F.HEX, "topology", "has this PDI (8 bytes) in its certificate"),
    LieSpec(_D, "multi-tcb-info", "POSITION[,FLAG]", _F.POSITION_WORD, "debug",
         "this certificate has a MultiTcbInfo too, whose second entry states the flag (debug)"),
    LieSpec(_DR, "chain-signature", "POSITION", _F.POSITION, "chain-path", "breaks this certificate's signature"),
    LieSpec(_DR, "not-a-ca", "POSITION", _F.POSITION, "chain-path", "issues from a certificate that is no CA"),
    LieSpec(_DR, "key-usage", "POSITION", _F.POSITION, "chain-path", "gives this certificate the wrong key usage"),
    LieSpec(_DR, "critical", "POSITION", _F.POSITION, "chain-path", "adds an unknown critical extension"),
    LieSpec(_DR, "algorithm", "POSITION", _F.POSITION, "chain-path", "signs this certificate with SHA-256"),
    LieSpec(_DR, "other-root", "", _F.NONE, "chain-path", "has a root with the right name and another key"),
    LieSpec(_DR, "expired", "POSITION", _F.POSITION, "chain-validity", "shows a certificate that ended yesterday"),
    LieSpec(_DR, "not-yet-valid", "POSITION", _F.POSITION, "chain-validity", "shows one that begins tomorrow"),
    # Revocation answers about its certificates.
    LieSpec(_DR, "revoked", "POSITION[,REASON]", _F.POSITION_WORD, "chain-revocation", "is revoked (keyCompromise)"),
    LieSpec(_DR, "hold", "POSITION", _F.POSITION, "chain-revocation", "is revoked with reason certificateHold"),
    LieSpec(_DR, "unknown", "POSITION", _F.POSITION, "chain-revocation", "is unknown to the responder"),
    LieSpec(_DR, "stale", "POSITION", _F.POSITION, "chain-revocation", "gets an answer that ended an hour ago"),
    LieSpec(_DR, "future", "POSITION", _F.POSITION, "chain-revocation", "gets an answer that begins in an hour"),
    LieSpec(_DR, "no-next-update", "POSITION", _F.POSITION, "chain-revocation",
         "gets an answer without an end, which counts only where it echoes our nonce (live)"),
    LieSpec(_DR, "wrong-responder", "POSITION", _F.POSITION, "chain-revocation", "a responder of another CA answers"),
    LieSpec(_DR, "responder-purpose", "POSITION", _F.POSITION, "chain-revocation", "the responder lacks OCSPSigning"),
    LieSpec(_DR, "responder-expired", "POSITION", _F.POSITION, "chain-revocation", "the responder ended yesterday"),
    LieSpec(_DR, "ocsp-signature", "POSITION", _F.POSITION, "chain-revocation", "the answer's signature is wrong"),
    LieSpec(_DR, "ocsp-serial", "POSITION", _F.POSITION, "chain-revocation", "the answer is about another serial"),
    LieSpec(_DR, "ocsp-status", "POSITION,STATUS", _F.POSITION_WORD, "chain-revocation",
         "the responder fails: malformedRequest, internalError, tryLater, sigRequired, unauthorized"),
    LieSpec(_DR, "ocsp-garbage", "POSITION", _F.POSITION, "chain-revocation", "the answer is no DER"),
    LieSpec(_DR, "ocsp-nonce", "POSITION", _F.POSITION, "chain-revocation", "the answer echoes another nonce (live)"),
    LieSpec(_DR, "ocsp-no-nonce", "POSITION", _F.POSITION, "", "the answer echoes no nonce, as a cache does"),
    LieSpec(_DR, "ocsp-by-issuer", "POSITION", _F.POSITION, "", "the issuer signs the answer itself, which is right"),
    # Among devices, and beside the report.
    LieSpec(_D, "duplicate", "DEVICE", _F.DEVICE, "devices-distinct", "answers with that device's report and chain"),
    LieSpec(_D, "missing", "", _F.NONE, "devices-present", "has fallen off the bus; seen where a count is expected"),
    LieSpec(_D, "hint-driver", "TEXT", _F.TEXT, "hints", "the driver names another driver version than the signed one"),
    LieSpec(_D, "hint-firmware", "TEXT", _F.TEXT, "hints", "the driver names another firmware version"),
    # Reference manifests.
    LieSpec(_R, "missing", "", _F.NONE, "rim-available", "the service does not have it"),
    LieSpec(_R, "golden", "INDEX[,HEX]", _F.INDEX_HEX, "measurements", "is well signed and expects another value"),
    LieSpec(_R, "reissued", "[INDEX]", _F.INDEX, "measurements", "is a later issue under the same id; index 9 differs"),
    LieSpec(_R, "renewed", "", _F.NONE, "", "is a later issue under the same id: the same values, another signer"),
    LieSpec(_R, "no-values", "", _F.NONE, "rim-format", "is well signed and has no active value"),
    LieSpec(_R, "conflict", "INDEX", _F.INDEX, "rim-conflict", "claims an index that is the other RIM's"),
    LieSpec(_R, "min-svn", "NUMBER", _F.INDEX, "minimum-svn", "demands this FSP security version number at least"),
    LieSpec(_R, "wrong-version", "[TEXT]", _F.TEXT, "rim-binding", "describes another version"),
    LieSpec(_R, "wrong-product", "[TEXT]", _F.TEXT, "rim-binding", "describes another chip"),
    LieSpec(_R, "wrong-edition", "[TEXT]", _F.TEXT, "rim-binding", "has another edition (GPU or SWITCH)"),
    LieSpec(_R, "wrong-manufacturer", "[TEXT]", _F.TEXT, "rim-binding", "is of another firmware manufacturer"),
    LieSpec(_R, "signature", "", _F.NONE, "rim-signature", "has a SignatureValue that is a good one of other bytes"),
    LieSpec(_R, "tampered", "INDEX", _F.INDEX, "rim-signature", "got this golden value changed after it was signed"),
    LieSpec(_R, "wrong-key", "", _F.NONE, "rim-signature", "is signed with a key that its chain does not certify"),
    LieSpec(_R, "xml", "TRICK", _F.TRICK, "rim-format",
         "breaks the profile: dtd, entity, comment, instruction, key-value, second-signature, reference, transform,"
         " digest, truncated"),
    # The machine.
    LieSpec(_P, "cc-off", "", _F.NONE, "", "confidential computing is off: the driver gives neither report nor chain"),
    LieSpec(_P, "debug", "", _F.NONE, "", "the driver says that DevTools mode is on"),
    LieSpec(_P, "pcie-mode", "NUMBER", _F.INDEX, "hints",
         "the driver says this of the switches: 0 off, 1 on, 2 failed, 3 locked"),
    LieSpec(_P, "one-gpu-other-mode", "", _F.NONE, "one-mode", "the last GPU reports another mode than the rest"),
)
# What a guest lies about: its quote, and what Intel or AMD say of its machine.
GUEST_LIES: tuple[LieSpec, ...] = (
    LieSpec(_G, "measurement", "[HEX]", _F.HEX, "guest-measurements", "has another MRTD or MEASUREMENT"),
    LieSpec(_G, "register", "INDEX[,HEX]", _F.INDEX_HEX, "guest-measurements", "has another RTMR", "tdx"),
    LieSpec(_G, "host-data", "[HEX]", _F.HEX, "guest-measurements", "has other host data", "snp"),
    LieSpec(_G, "report-data", "[HEX]", _F.HEX, "guest-binding", "gives a quote over other report data"),
    LieSpec(_G, "debug", "", _F.NONE, "guest-state", "is a debug guest"),
    LieSpec(_G, "migratable", "", _F.NONE, "guest-state", "can be moved to another machine"),
    LieSpec(_G, "sept-ve", "", _F.NONE, "guest-state", "lets its host take memory away (SEPT_VE_DISABLE unset)", "tdx"),
    LieSpec(_G, "vmpl", "NUMBER", _F.INDEX, "guest-state", "asks from this privilege level", "snp"),
    LieSpec(_G, "host-asked", "", _F.NONE, "guest-state", "shows a report that its host asked for", "snp"),
    LieSpec(_G, "policy", "HEX", _F.HEX, "", "was started with this guest policy", "snp"),
    LieSpec(_G, "version", "NUMBER", _F.INDEX, "", "has a report of this version", "snp"),
    # What happens to a quote on its way.
    LieSpec(_G, "signature", "[BYTE]", _F.INDEX, "quote-signature", "turns over one byte of the signature"),
    LieSpec(_G, "wrong-key", "", _F.NONE, "quote-signature", "signs with a key that no certificate is about"),
    LieSpec(_G, "tamper", "OFFSET", _F.INDEX, "", "turns over the byte of the quote at this offset, after signing"),
    LieSpec(_G, "truncate", "BYTES", _F.INDEX, "quote-format", "cuts this many bytes off the end of the quote"),
    LieSpec(_G, "trailing", "HEX", _F.HEX, "quote-format", "adds bytes after the quote"),
    LieSpec(_G, "qe-signer", "", _F.NONE, "quote-signature", "has a quoting enclave of another signer", "tdx"),
    LieSpec(_G, "module-signer", "", _F.NONE, "quote-signature", "has a TDX module of another signer", "tdx"),
    LieSpec(_G, "unsigned", "", _F.NONE, "quote-collateral", "says that no key signs its report", "snp"),
    LieSpec(_G, "masked", "", _F.NONE, "quote-signature", "says that the key of its chip is masked", "snp"),
    # Its endorsement: 0 is PCK, VCEK or VLEK, 1 their authority, 2 the root.
    LieSpec(_G, "other-root", "", _F.NONE, "quote-chain", "has a root with the right name and another key"),
    LieSpec(_G, "chain-signature", "POSITION", _F.POSITION, "quote-chain", "breaks this certificate's signature"),
    LieSpec(_G, "expired", "POSITION", _F.POSITION, "quote-chain", "shows a certificate that ended yesterday"),
    LieSpec(_G, "not-yet-valid", "POSITION", _F.POSITION, "quote-chain", "shows one that begins tomorrow"),
    LieSpec(_G, "wrong-chip", "", _F.NONE, "quote-chip", "has a certificate that names another chip", "snp"),
    LieSpec(_G, "wrong-tcb", "", _F.NONE, "quote-chip", "has a certificate for another level of firmware", "snp"),
    LieSpec(_G, "wrong-generation", "", _F.NONE, "quote-chip", "says that its CPU is of no known generation", "snp"),
    # What the maker says of the machine.
    LieSpec(_G, "revoked", "POSITION", _F.POSITION, "quote-revocation", "has a revoked certificate"),
    LieSpec(_G, "crl-signature", "", _F.NONE, "", "comes with a revocation list that another key signed"),
    LieSpec(_G, "no-crl", "", _F.NONE, "quote-revocation", "comes without a revocation list", "snp"),
    LieSpec(_G, "stale", "", _F.NONE, "quote-collateral", "comes with collateral that ended an hour ago"),
    LieSpec(_G, "future", "", _F.NONE, "quote-collateral", "comes with collateral that begins in an hour"),
    LieSpec(_G, "other-platform", "", _F.NONE, "quote-collateral", "comes with collateral of another platform", "tdx"),
    LieSpec(_G, "tcb-info-tampered", "", _F.NONE, "quote-signature", "got its TCB info changed after signing", "tdx"),
    LieSpec(_G, "evaluation", "NUMBER", _F.INDEX, "quote-tcb", "comes with collateral of this evaluation", "tdx"),
    LieSpec(_G, "tcb-status", "STATUS", _F.LETTERS, "quote-tcb", "runs on a platform of this status", "tdx"),
    LieSpec(_G, "out-of-date", "", _F.NONE, "quote-tcb", "runs on a platform with old microcode", "tdx"),
    LieSpec(_G, "old-firmware", "", _F.NONE, "quote-tcb", "runs on a chip with old firmware and microcode", "snp"),
)
# fmt: on

# Lies of the responder about one certificate: they need a position whose revocation is asked about.
OCSP_LIES = frozenset(spec.name for spec in LIES if spec.check == "chain-revocation") | {
    "ocsp-no-nonce",
    "ocsp-by-issuer",
}
_BY_NAME: dict[tuple[str, Scope | None], LieSpec] = {
    (spec.name, scope): spec for spec in (*LIES, *GUEST_LIES) for scope in spec.scopes
}
