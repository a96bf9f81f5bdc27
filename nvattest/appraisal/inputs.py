"""What an appraisal is made from besides evidence: RIMs, revocation answers, CPU collateral, as bytes with a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from nvattest.errors import ResultCode
from nvattest.model import counted


class Source(Enum):
    """Where a piece of collateral came from. It decides how fresh a revocation answer can be said to be.

    A FILE is one that the caller named, or one in a folder that the caller named; it counts as a BUNDLE does.
    """

    # Members are singletons; Enum's own hash would ask Python code for each look-up.
    __hash__ = object.__hash__

    LIVE = "live"
    CACHE = "cache"
    BUNDLE = "bundle"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class RimAnswer:
    """The bytes of one RIM. ``origin`` is a URL or a file name, for people."""

    id: str
    content: bytes = field(repr=False)
    source: Source
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspAnswer:
    """The DER bytes of one OCSP response, and the nonce of the request that it answers (None: no request of ours)."""

    content: bytes = field(repr=False)
    source: Source
    nonce: bytes | None = None
    origin: str = ""


class CpuAnswer(NamedTuple):
    """The bytes of one file of a CPU maker's collateral (``nvattest.tee.collateral.parse_collateral``)."""

    content: bytes
    source: Source
    origin: str = ""


class Unavailable(NamedTuple):
    """Why a piece of collateral could not be had: NVIDIA's code for it, what happened, and what to do.

    ``passing`` is that of ``CollateralError``. ``asked`` is False where the caller wanted no service to be asked.
    """

    code: ResultCode
    message: str
    hint: str = ""
    passing: bool = False
    asked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Everything that was gathered for a verification; nothing in it is believed before its signature is checked.

    ``rims`` is keyed by RIM id. ``unavailable`` is keyed by ``rim:<id>`` and by ``ocsp:<SHA-256 of the certificate>``.
    ``cpu`` is for the quotes of guests; devices need none of it.
    """

    rims: Mapping[str, RimAnswer] = field(default_factory=dict)
    ocsp: tuple[OcspAnswer, ...] = ()
    unavailable: Mapping[str, Unavailable] = field(default_factory=dict)
    cpu: tuple[CpuAnswer, ...] = ()

    def __post_init__(self) -> None:
        # A verifier keeps what it read from the answers of this object: a list must not change under it.
        object.__setattr__(self, "ocsp", tuple(self.ocsp))

    def __repr__(self) -> str:
        return (
            f"<Collateral: {counted(len(self.rims), 'RIM')}, {counted(len(self.ocsp), 'revocation answer')}, "
            f"{len(self.unavailable)} unavailable>"
        )

    def merged(self, other: Collateral) -> Collateral:
        """Both together; where both have a RIM of one id, this one's is kept."""
        return Collateral(
            rims={**other.rims, **self.rims},
            ocsp=self.ocsp + other.ocsp,
            unavailable={**other.unavailable, **self.unavailable},
            cpu=self.cpu + other.cpu,
        )
