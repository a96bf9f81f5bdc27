"""Types that all packages share: kinds and architectures of devices, the requester nonce, verification time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import ClassVar, NoReturn

from nvattest._text import hex_bytes
from nvattest.errors import InputError

NONCE_SIZE = 32
# Where people read a result under simulated roots.
SIMULATED = "*** SIMULATED: this proves nothing ***"

# RFC 3339, narrower than what datetime.fromisoformat takes, and the same on every version of Python.
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt]((?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-]\d\d:[0-5]\d))", re.ASCII
)


def require_type(value: object, kind: type, argument: str) -> None:
    """Refuse a value of another type by the argument's name (``argument-type``): the text "no" would count as true."""
    if not isinstance(value, kind):
        raise InputError(f"{argument} is a {kind.__name__}, not {type(value).__name__}", code="argument-type")


class NoTruthValue:
    """A result that may be a refusal. ``if verify(…):`` raises, since any object would pass there.

    ``_ask`` says what to ask instead.
    """

    __slots__ = ()
    _ask: ClassVar[str] = ".trusted, or call .require()"

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is neither true nor false: ask {self._ask}")


class Word(Enum):
    """An enum whose members are often looked up: they are singletons, and Enum's own hash would run Python code."""

    __hash__ = object.__hash__


class DeviceKind(Word):
    """What a device is. The value is the word used on the command line and in claims."""

    GPU = "gpu"
    NVSWITCH = "nvswitch"

    @property
    def label(self) -> str:
        """The prefix of a device's name in tokens and text: ``GPU-0``, ``SWITCH-3``."""
        return "GPU" if self is DeviceKind.GPU else "SWITCH"


class Architecture(Enum):
    """Architectures that this program knows. The value is the word in NVIDIA's evidence JSON.

    NVIDIA publishes no reference manifests for Rubin: its identity, freshness and state are verified, its firmware
    cannot be, so a Rubin is never trusted.
    """

    HOPPER = "HOPPER"
    BLACKWELL = "BLACKWELL"
    RUBIN = "RUBIN"
    LS10 = "LS10"

    @property
    def kind(self) -> DeviceKind:
        """LS10 is an NVSwitch, all others are GPUs."""
        return DeviceKind.NVSWITCH if self is Architecture.LS10 else DeviceKind.GPU


@dataclass(frozen=True, slots=True)
class Nonce:
    """The requester nonce: the 32 bytes of GET_MEASUREMENTS that make a report fresh (DSP0274, 10.11).

    Raises:
        InputError: the value is not bytes, or does not have exactly 32 of them.
    """

    value: bytes

    def __post_init__(self) -> None:
        if type(self.value) is not bytes:
            raise InputError(
                f"a nonce is bytes, not {type(self.value).__name__}",
                code="nonce-type",
                hint="read hexadecimal digits with Nonce.from_hex",
            )
        if len(self.value) != NONCE_SIZE:
            raise InputError(
                f"a nonce has exactly {NONCE_SIZE} bytes; this one has {len(self.value)}",
                code="nonce-size",
                hint="give 64 hexadecimal digits",
            )

    @classmethod
    def from_hex(cls, text: str) -> Nonce:
        """Read 64 hexadecimal digits, with or without a leading ``0x``.

        Raises:
            InputError: other characters, or another length.
        """
        value = hex_bytes(text)
        if value is None:
            raise InputError(
                f"not a hexadecimal nonce: {text[:80]!r}", code="nonce-hex", hint="give 64 hexadecimal digits"
            )
        return cls(value)

    @classmethod
    def of(cls, value: Nonce | bytes | str) -> Nonce:
        """A nonce as callers have it: itself, its 32 bytes, or 64 hexadecimal digits.

        Raises:
            InputError: something else.
        """
        if isinstance(value, Nonce):
            return value
        return cls.from_hex(value) if isinstance(value, str) else cls(value)

    def hex(self) -> str:
        """The nonce as 64 lower-case hexadecimal digits, as in ``eat_nonce``."""
        return self.value.hex()

    def __str__(self) -> str:
        return self.value.hex()


@dataclass(frozen=True, slots=True)
class VerificationTime:
    """The instants at which validity is judged: ``device`` for the device chain, ``rim`` for the RIM chains.

    Each also judges the revocation answers of its chain. Both are aware datetimes in UTC. A live verification uses one
    instant for both; evidence recorded earlier is judged at the times at which its collateral was recorded.

    Raises:
        InputError: a datetime without a time zone, or one that UTC cannot express.
    """

    device: datetime
    rim: datetime

    def __post_init__(self) -> None:
        for name in ("device", "rim"):
            value: datetime = getattr(self, name)
            if value.utcoffset() is None:
                raise InputError(
                    f"the {name} time has no time zone", code="time-zone", hint="give an aware datetime, best in UTC"
                )
            object.__setattr__(self, name, _to_utc(value, str(value)))

    @classmethod
    def at(cls, instant: datetime) -> VerificationTime:
        """One instant for everything."""
        return cls(device=instant, rim=instant)

    @classmethod
    def of(cls, value: VerificationTime | datetime) -> VerificationTime:
        """A time as callers have it: itself, or one instant for everything.

        Raises:
            InputError: a datetime without a time zone, or something else.
        """
        if isinstance(value, VerificationTime):
            return value
        if not isinstance(value, datetime):
            raise InputError(
                f"an instant is a datetime, not {type(value).__name__}",
                code="time",
                hint="read text with VerificationTime.parse",
            )
        return cls.at(value)

    @classmethod
    def parse(cls, text: str) -> VerificationTime:
        """Read ``TIME`` or ``device=TIME,rim=TIME`` where TIME is RFC 3339, such as ``2025-08-21T07:00:00Z``.

        Raises:
            InputError: not such a text.
        """
        if "=" not in text:
            return cls.at(parse_time(text))
        parts = dict(part.partition("=")[::2] for part in text.split(","))
        if set(parts) != {"device", "rim"} or text.count(",") != 1:
            raise InputError(
                f"not a verification time: {text[:120]!r}", code="time", hint="give TIME or device=TIME,rim=TIME"
            )
        return cls(device=parse_time(parts["device"]), rim=parse_time(parts["rim"]))

    def __str__(self) -> str:
        device, rim = format_time(self.device), format_time(self.rim)
        return device if device == rim else f"device={device},rim={rim}"


def parse_time(text: str) -> datetime:
    """Read one RFC 3339 instant with its zone into UTC. Raises InputError: not an instant, or one without a zone."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise _not_an_instant(text)
    date, clock, fraction, zone = match.groups()
    try:
        value = datetime.fromisoformat(f"{date}T{clock}.{(fraction or '')[:6]:0<6}{zone or '+00:00'}")
    except ValueError:
        raise _not_an_instant(text) from None
    return _to_utc(value, text)


def _not_an_instant(text: str) -> InputError:
    return InputError(f"not an instant: {text[:80]!r}", code="time", hint="write it as 2025-08-21T07:00:00Z")


def _to_utc(value: datetime, text: str) -> datetime:
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise InputError(f"an instant out of range: {text[:80]!r}", code="time") from None


def format_time(value: datetime) -> str:
    """An instant as ``2025-08-21T07:00:00Z``, the form of every output."""
    # Not strftime: its %Y has no leading zeros on Linux.
    return value.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def counted(count: int, one: str, many: str = "") -> str:
    """``count`` things in words: 1 GPU, 2 GPUs, 1 switch, 4 switches."""
    return f"{count} {one if count == 1 else many or one + 's'}"
