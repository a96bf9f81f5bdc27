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
from nvattest.model import DeviceKind

__all__ = [
    "GUEST_LIES",
    "LIES",
    "OCSP_LIES",
    "Lie",
    "LieSpec",
    "Scope",
    "Told",
    "find_spec",
    "must_find",
    "parse_fault",
]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LieSpec:
    """One entry of the vocabulary.

    ``argument`` is its form for people, with ``[]`` where it may be left out; ``check`` is what has to see the
    lie ("" where it depends on the argument or where the lie is only a variant); :meth:`check_of` gives its full id.
    ``only`` is the one kind of guest that can tell it: ``tdx`` or ``snp``.
    """

    name: str
    scopes: frozenset[Scope]
    argument: str
    meaning: str
    check: str
    form: _Form
    optional: bool
    only: str = ""

    def check_of(self, target: str) -> str:
        """The id of the check that has to see the lie when ``target`` tells it; ``rim*`` stands for the driver RIM."""
        if _scope(target) is not Scope.RIM:
            return self.check
        role = "driver" if target == "rim*" else target.partition("-")[0]
        word = {"chain-path": "rim-chain", "chain-validity": "rim-validity", "chain-revocation": "rim-revocation"}.get(
            self.check, self.check
        )
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
        spec = find_spec(self.name, scope)
        if spec is None:
            known = tuple(item.name for item in (*LIES, *GUEST_LIES) if scope in item.scopes)
            raise InputError(
                f"{self.target} cannot lie about {self.name[:40]!r}",
                code="fault-name",
                hint=with_suggestion(self.name, known, f"it can tell: {', '.join(known)}"),
            )
        if not spec.accepts(self.argument):
            raise InputError(
                f"the lie {self.name!r} cannot have the argument {(self.argument or '')[:80]!r}",
                code="fault-argument",
                hint=f"write it as {self.target}:{spec.name}{spec.argument and '='}{spec.argument}",
            )

    @property
    def position(self) -> int | None:
        """The position in a chain that it is about; None for lies about other things."""
        scope = _scope(self.target)
        spec = None if scope is None else find_spec(self.name, scope)
        if spec is None or spec.form not in (_Form.POSITION, _Form.POSITION_WORD) or self.argument is None:
            return None
        return int(self.argument[0])

    @property
    def check(self) -> str:
        """The id of the check that has to see it, or "" where none is known."""
        scope = _scope(self.target)
        spec = None if scope is None else find_spec(self.name, scope)
        return "" if spec is None else spec.check_of(self.target)

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
    def by_device(cls, lies: Iterable[Lie], kind: DeviceKind, index: int) -> Told:
        """Those of one device."""
        word = kind.label.lower()
        return cls(lie for lie in lies if lie.target in (f"{word}{index}", f"{word}*"))

    @classmethod
    def by_rim(cls, lies: Iterable[Lie], role: str) -> Told:
        """Those of the RIMs of a role: ``driver``, ``vbios`` or ``bios``."""
        return cls(lie for lie in lies if lie.target in (f"{role}-rim", "rim*"))

    @classmethod
    def by_platform(cls, lies: Iterable[Lie]) -> Told:
        """Those of the platform."""
        return cls(lie for lie in lies if lie.target == "platform")

    @classmethod
    def by_guest(cls, lies: Iterable[Lie]) -> Told:
        """Those of the guest."""
        return cls(lie for lie in lies if lie.target == "guest")

    def __bool__(self) -> bool:
        return bool(self._lies)

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


_D, _R, _P, _G = Scope.DEVICE, Scope.RIM, Scope.PLATFORM, Scope.GUEST
_F = _Form


def _lie(
    scopes: tuple[Scope, ...], name: str, argument: str, form: _Form, check: str, meaning: str, only: str = ""
) -> LieSpec:
    return LieSpec(
        name=name,
        scopes=frozenset(scopes),
        argument=argument,
        meaning=meaning,
        check=check,
        form=form,
        optional=argument.startswith("["),
        only=only,
    )


# fmt: off
LIES: tuple[LieSpec, ...] = (
    # What the device itself says and signs.
    _lie((_D,), "measurement", "INDEX[,HEX]", _F.INDEX_HEX, "measurements", "measures another value at this index"),
    _lie((_D,), "measurement-missing", "INDEX", _F.INDEX, "measurements", "leaves this measurement block out"),
    _lie((_D,), "measurement-duplicate", "INDEX", _F.INDEX, "report-format", "sends this measurement block twice"),
    _lie((_D,), "field", "ID[,HEX]", _F.INDEX_HEX, "", "says this in opaque entry ID (without HEX: bytes turned over)"),
    _lie((_D,), "field-missing", "ID", _F.INDEX, "", "leaves opaque entry ID out"),
    _lie((_D,), "field-duplicate", "ID", _F.INDEX, "report-format", "sends opaque entry ID twice"),
    _lie((_D,), "driver-version", "TEXT", _F.TEXT, "driver-rim-available", "signs another driver version"),
    _lie((_D,), "firmware-version", "TEXT", _F.TEXT, "", "signs another VBIOS (aa.bb.cc.dd.ee) or switch BIOS version"),
    _lie((_D,), "nvdec0", "on|off|HEX", _F.WORD, "", "reports its NVDEC0 engine on (AA), off (55), or this byte"),
    _lie((_D,), "fwid", "[HEX]", _F.HEX, "fwid", "reports a firmware id that its certificate does not name"),
    _lie((_D,), "feature", "mpt|spt|ppcie|NUMBER", _F.WORD, "", "reports another mode"),
    _lie((_D,), "svn", "NUMBER", _F.INDEX, "minimum-svn", "reports this FSP security version number"),
    _lie((_D,), "opaque-version", "MAJOR", _F.INDEX, "report-format", "claims this major version of the opaque data"),
    _lie((_D,), "opaque-profile", "NUMBER", _F.INDEX, "report-format", "claims this profile of the opaque data"),
    _lie((_D,), "spdm-version", "HEX", _F.HEX, "report-format", "answers in this SPDM version (12 is 1.2)"),
    _lie((_D,), "topology", "[foreign|missing|extra]", _F.TOPOLOGY, "topology", "names a wrong neighbour"),
    _lie((_D,), "unlocked", "", _F.NONE, "topology", "a switch that says that it is not locked (entry 25)"),
    _lie((_D,), "debug", "[FLAG]", _F.FLAG, "debug",
         "states a DICE flag (Blackwell: debug, notSecure, recovery), else index 9 differs"),
    _lie((_D,), "other-nonce", "[HEX]", _F.HEX, "nonce", "answers another nonce than the one it was asked"),
    # What happens to a report on its way.
    _lie((_D,), "signature", "[BYTE]", _F.INDEX, "report-signature", "turns over one byte of the signature"),
    _lie((_D,), "signature-zero", "", _F.NONE, "report-signature", "has a signature of r = s = 0"),
    _lie((_D,), "wrong-key", "", _F.NONE, "report-signature", "signs with a key that no certificate is about"),
    _lie((_D,), "tamper", "OFFSET", _F.INDEX, "", "turns over the byte of the report at this offset, after signing"),
    _lie((_D,), "truncate", "BYTES", _F.INDEX, "report-format", "cuts this many bytes off the end of the report"),
    _lie((_D,), "trailing", "HEX", _F.HEX, "report-trailing-bytes", "adds bytes after the signature"),
    # Its certificates.
    _lie((_D,), "chain-of", "DEVICE", _F.DEVICE, "report-signature", "shows the chain of another device"),
    _lie((_D,), "chain-missing", "POSITION", _F.POSITION, "chain-path", "leaves this certificate out of the chain"),
    _lie((_D,), "chain-swapped", "POSITION", _F.POSITION, "chain-path", "swaps this certificate with the next one"),
    _lie((_D,), "chain-repeated", "POSITION", _F.POSITION, "chain-path", "shows this certificate twice"),
    _lie((_D,), "chain-format", "", _F.NONE, "chain-format", "sends text that is no PEM"),
    _lie((_D,), "chain-nuls", "[COUNT]", _F.INDEX, "", "counts NUL bytes (5) after the PEM text, as real drivers do"),
    _lie((_D,), "fwid-extension", "[HEX]", _F.HEX, "fwid", "has a leaf without FWID extension, or with this content"),
    _lie((_D,), "chip", "NAME", _F.TEXT, "architecture", "has certificates of another chip, as GB100"),
    _lie((_D,), "leaf-chip", "NAME", _F.TEXT, "architecture", "has a leaf of another chip than its BROM"),
    _lie((_D,), "pdi", "HEX", _F.HEX, "topology", "has this PDI (8 bytes) in its certificate"),
    _lie((_D,), "multi-tcb-info", "POSITION[,FLAG]", _F.POSITION_WORD, "debug",
         "this certificate has a MultiTcbInfo too, whose second entry states the flag (debug)"),
    _lie((_D, _R), "chain-signature", "POSITION", _F.POSITION, "chain-path", "breaks this certificate's signature"),
    _lie((_D, _R), "not-a-ca", "POSITION", _F.POSITION, "chain-path", "issues from a certificate that is no CA"),
    _lie((_D, _R), "key-usage", "POSITION", _F.POSITION, "chain-path", "gives this certificate the wrong key usage"),
    _lie((_D, _R), "critical", "POSITION", _F.POSITION, "chain-path", "adds an unknown critical extension"),
    _lie((_D, _R), "algorithm", "POSITION", _F.POSITION, "chain-path", "signs this certificate with SHA-256"),
    _lie((_D, _R), "other-root", "", _F.NONE, "chain-path", "has a root with the right name and another key"),
    _lie((_D, _R), "expired", "POSITION", _F.POSITION, "chain-validity", "shows a certificate that ended yesterday"),
    _lie((_D, _R), "not-yet-valid", "POSITION", _F.POSITION, "chain-validity", "shows one that begins tomorrow"),
    # Revocation answers about its certificates.
    _lie((_D, _R), "revoked", "POSITION[,REASON]", _F.POSITION_WORD, "chain-revocation", "is revoked (keyCompromise)"),
    _lie((_D, _R), "hold", "POSITION", _F.POSITION, "chain-revocation", "is revoked with reason certificateHold"),
    _lie((_D, _R), "unknown", "POSITION", _F.POSITION, "chain-revocation", "is unknown to the responder"),
    _lie((_D, _R), "stale", "POSITION", _F.POSITION, "chain-revocation", "gets an answer that ended an hour ago"),
    _lie((_D, _R), "future", "POSITION", _F.POSITION, "chain-revocation", "gets an answer that begins in an hour"),
    _lie((_D, _R), "no-next-update", "POSITION", _F.POSITION, "chain-revocation",
         "gets an answer without an end, which counts only where it echoes our nonce (live)"),
    _lie((_D, _R), "wrong-responder", "POSITION", _F.POSITION, "chain-revocation", "a responder of another CA answers"),
    _lie((_D, _R), "responder-purpose", "POSITION", _F.POSITION, "chain-revocation", "the responder lacks OCSPSigning"),
    _lie((_D, _R), "responder-expired", "POSITION", _F.POSITION, "chain-revocation", "the responder ended yesterday"),
    _lie((_D, _R), "ocsp-signature", "POSITION", _F.POSITION, "chain-revocation", "the answer's signature is wrong"),
    _lie((_D, _R), "ocsp-serial", "POSITION", _F.POSITION, "chain-revocation", "the answer is about another serial"),
    _lie((_D, _R), "ocsp-status", "POSITION,STATUS", _F.POSITION_WORD, "chain-revocation",
         "the responder fails: malformedRequest, internalError, tryLater, sigRequired, unauthorized"),
    _lie((_D, _R), "ocsp-garbage", "POSITION", _F.POSITION, "chain-revocation", "the answer is no DER"),
    _lie((_D, _R), "ocsp-nonce", "POSITION", _F.POSITION, "chain-revocation", "the answer echoes another nonce (live)"),
    _lie((_D, _R), "ocsp-no-nonce", "POSITION", _F.POSITION, "", "the answer echoes no nonce, as a cache does"),
    _lie((_D, _R), "ocsp-by-issuer", "POSITION", _F.POSITION, "", "the issuer signs the answer itself, which is right"),
    # Among devices, and beside the report.
    _lie((_D,), "duplicate", "DEVICE", _F.DEVICE, "devices-distinct", "answers with that device's report and chain"),
    _lie((_D,), "missing", "", _F.NONE, "devices-present", "has fallen off the bus; seen where a count is expected"),
    _lie((_D,), "hint-driver", "TEXT", _F.TEXT, "hints", "the driver names another driver version than the signed one"),
    _lie((_D,), "hint-firmware", "TEXT", _F.TEXT, "hints", "the driver names another firmware version"),
    # Reference manifests.
    _lie((_R,), "missing", "", _F.NONE, "rim-available", "the service does not have it"),
    _lie((_R,), "golden", "INDEX[,HEX]", _F.INDEX_HEX, "measurements", "is well signed and expects another value"),
    _lie((_R,), "reissued", "[INDEX]", _F.INDEX, "measurements", "is a later issue under the same id; index 9 differs"),
    _lie((_R,), "renewed", "", _F.NONE, "", "is a later issue under the same id: the same values, another signer"),
    _lie((_R,), "no-values", "", _F.NONE, "rim-format", "is well signed and has no active value"),
    _lie((_R,), "conflict", "INDEX", _F.INDEX, "rim-conflict", "claims an index that is the other RIM's"),
    _lie((_R,), "min-svn", "NUMBER", _F.INDEX, "minimum-svn", "demands this FSP security version number at least"),
    _lie((_R,), "wrong-version", "[TEXT]", _F.TEXT, "rim-binding", "describes another version"),
    _lie((_R,), "wrong-product", "[TEXT]", _F.TEXT, "rim-binding", "describes another chip"),
    _lie((_R,), "wrong-edition", "[TEXT]", _F.TEXT, "rim-binding", "has another edition (GPU or SWITCH)"),
    _lie((_R,), "wrong-manufacturer", "[TEXT]", _F.TEXT, "rim-binding", "is of another firmware manufacturer"),
    _lie((_R,), "signature", "", _F.NONE, "rim-signature", "has a SignatureValue that is a good one of other bytes"),
    _lie((_R,), "tampered", "INDEX", _F.INDEX, "rim-signature", "got this golden value changed after it was signed"),
    _lie((_R,), "wrong-key", "", _F.NONE, "rim-signature", "is signed with a key that its chain does not certify"),
    _lie((_R,), "xml", "TRICK", _F.TRICK, "rim-format",
         "breaks the profile: dtd, entity, comment, instruction, key-value, second-signature, reference, transform,"
         " digest, truncated"),
    # The machine.
    _lie((_P,), "cc-off", "", _F.NONE, "", "confidential computing is off: the driver gives neither report nor chain"),
    _lie((_P,), "debug", "", _F.NONE, "", "the driver says that DevTools mode is on"),
    _lie((_P,), "pcie-mode", "NUMBER", _F.INDEX, "hints",
         "the driver says this of the switches: 0 off, 1 on, 2 failed, 3 locked"),
    _lie((_P,), "one-gpu-other-mode", "", _F.NONE, "one-mode", "the last GPU reports another mode than the rest"),
)
# What a guest lies about: its quote, and what Intel or AMD say of its machine.
GUEST_LIES: tuple[LieSpec, ...] = (
    _lie((_G,), "measurement", "[HEX]", _F.HEX, "guest-measurements", "has another MRTD or MEASUREMENT"),
    _lie((_G,), "register", "INDEX[,HEX]", _F.INDEX_HEX, "guest-measurements", "has another RTMR", "tdx"),
    _lie((_G,), "host-data", "[HEX]", _F.HEX, "guest-measurements", "has other host data", "snp"),
    _lie((_G,), "report-data", "[HEX]", _F.HEX, "guest-binding", "gives a quote over other report data"),
    _lie((_G,), "debug", "", _F.NONE, "guest-state", "is a debug guest"),
    _lie((_G,), "migratable", "", _F.NONE, "guest-state", "can be moved to another machine"),
    _lie((_G,), "sept-ve", "", _F.NONE, "guest-state", "lets its host take memory away (SEPT_VE_DISABLE unset)", "tdx"),
    _lie((_G,), "vmpl", "NUMBER", _F.INDEX, "guest-state", "asks from this privilege level", "snp"),
    _lie((_G,), "host-asked", "", _F.NONE, "guest-state", "shows a report that its host asked for", "snp"),
    _lie((_G,), "policy", "HEX", _F.HEX, "", "was started with this guest policy", "snp"),
    _lie((_G,), "version", "NUMBER", _F.INDEX, "", "has a report of this version", "snp"),
    # What happens to a quote on its way.
    _lie((_G,), "signature", "[BYTE]", _F.INDEX, "quote-signature", "turns over one byte of the signature"),
    _lie((_G,), "wrong-key", "", _F.NONE, "quote-signature", "signs with a key that no certificate is about"),
    _lie((_G,), "tamper", "OFFSET", _F.INDEX, "", "turns over the byte of the quote at this offset, after signing"),
    _lie((_G,), "truncate", "BYTES", _F.INDEX, "quote-format", "cuts this many bytes off the end of the quote"),
    _lie((_G,), "trailing", "HEX", _F.HEX, "quote-format", "adds bytes after the quote"),
    _lie((_G,), "qe-signer", "", _F.NONE, "quote-signature", "has a quoting enclave of another signer", "tdx"),
    _lie((_G,), "module-signer", "", _F.NONE, "quote-signature", "has a TDX module of another signer", "tdx"),
    _lie((_G,), "unsigned", "", _F.NONE, "quote-collateral", "says that no key signs its report", "snp"),
    _lie((_G,), "masked", "", _F.NONE, "quote-signature", "says that the key of its chip is masked", "snp"),
    # Its endorsement: 0 is PCK, VCEK or VLEK, 1 their authority, 2 the root.
    _lie((_G,), "other-root", "", _F.NONE, "quote-chain", "has a root with the right name and another key"),
    _lie((_G,), "chain-signature", "POSITION", _F.POSITION, "quote-chain", "breaks this certificate's signature"),
    _lie((_G,), "expired", "POSITION", _F.POSITION, "quote-chain", "shows a certificate that ended yesterday"),
    _lie((_G,), "not-yet-valid", "POSITION", _F.POSITION, "quote-chain", "shows one that begins tomorrow"),
    _lie((_G,), "wrong-chip", "", _F.NONE, "quote-chip", "has a certificate that names another chip", "snp"),
    _lie((_G,), "wrong-tcb", "", _F.NONE, "quote-chip", "has a certificate for another level of firmware", "snp"),
    _lie((_G,), "wrong-generation", "", _F.NONE, "quote-chip", "says that its CPU is of no known generation", "snp"),
    # What the maker says of the machine.
    _lie((_G,), "revoked", "POSITION", _F.POSITION, "quote-revocation", "has a revoked certificate"),
    _lie((_G,), "crl-signature", "", _F.NONE, "", "comes with a revocation list that another key signed"),
    _lie((_G,), "no-crl", "", _F.NONE, "quote-revocation", "comes without a revocation list", "snp"),
    _lie((_G,), "stale", "", _F.NONE, "quote-collateral", "comes with collateral that ended an hour ago"),
    _lie((_G,), "future", "", _F.NONE, "quote-collateral", "comes with collateral that begins in an hour"),
    _lie((_G,), "other-platform", "", _F.NONE, "quote-collateral", "comes with collateral of another platform", "tdx"),
    _lie((_G,), "tcb-info-tampered", "", _F.NONE, "quote-signature", "got its TCB info changed after signing", "tdx"),
    _lie((_G,), "evaluation", "NUMBER", _F.INDEX, "quote-tcb", "comes with collateral of this evaluation", "tdx"),
    _lie((_G,), "tcb-status", "STATUS", _F.LETTERS, "quote-tcb", "runs on a platform of this status", "tdx"),
    _lie((_G,), "out-of-date", "", _F.NONE, "quote-tcb", "runs on a platform with old microcode", "tdx"),
    _lie((_G,), "old-firmware", "", _F.NONE, "quote-tcb", "runs on a chip with old firmware and microcode", "snp"),
)
# fmt: on

# Lies of the responder about one certificate: they need a position whose revocation is asked about.
OCSP_LIES = frozenset(spec.name for spec in LIES if spec.check == "chain-revocation") | {
    "ocsp-no-nonce",
    "ocsp-by-issuer",
}
_BY_NAME = {(spec.name, scope): spec for spec in (*LIES, *GUEST_LIES) for scope in spec.scopes}


def find_spec(name: str, scope: Scope) -> LieSpec | None:
    """The entry of the vocabulary for a lie of this scope."""
    return _BY_NAME.get((name, scope))
