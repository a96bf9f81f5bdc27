"""Whether what a bundle says overall fits what it says of its devices.

A true overall result beside a device that failed is a contradiction, whoever signed it. A false one is always allowed:
only the platform as a whole may have failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from nvattest.model import counted
from nvattest.token.jws import refuse
from nvattest.token.refusals import EAT_MEMBER

_LABEL: Final = re.compile(r"(GPU|SWITCH|NVSWITCH)-(0|[1-9][0-9]{0,2})", re.ASCII)
# gpu0 as Trustee writes it, gpu_0 and device_0 (evidence from files) as NVAT does.
_EAR_LABEL: Final = re.compile(r"(gpu|switch|nvswitch|device)[-_]?(0|[1-9][0-9]{0,2})", re.ASCII | re.IGNORECASE)
_KINDS = {"GPU": "gpu", "SWITCH": "nvswitch", "NVSWITCH": "nvswitch"}

# Facts of the evidence and of the RIMs: no policy can make a good result without them.
_HARD = re.compile(
    r"x-nvidia-(gpu|switch)-("
    r"arch-check|attestation-report-parsed|attestation-report-signature-verified|vbios-index-no-conflict"
    r"|(driver|vbios|bios)-rim-(fetched|schema-validated|signature-verified|version-match|measurements-available))"
)
# A named weakening may leave these false in an honest token. Claims 2.0 have one boolean for each chain.
_SOFT = re.compile(
    r"x-nvidia-(gpu|switch)-("
    r"attestation-report-(nonce-match|cert-chain-fwid-match|cert-chain-validated)"
    r"|(driver|vbios|bios)-rim-cert-validated)"
)
_CHAIN = re.compile(r"x-nvidia-(gpu|switch)-(attestation-report|(driver|vbios|bios)-rim)-cert-chain")

Claims = Mapping[str, object]


def is_device_label(label: str) -> bool:
    """Whether a submodule of a detached EAT is named like a device."""
    return _LABEL.fullmatch(label) is not None


def is_ear_device_label(label: str) -> bool:
    """Whether a submodule of an EAR is named like a GPU or a switch."""
    return _EAR_LABEL.fullmatch(label) is not None


def check_identities(labels: Sequence[str], claims: Sequence[Claims]) -> None:
    """Refuse a device under two names, and a device under the name of another kind.

    Raises:
        TokenError: ``device-duplicate``, ``device-kind``.
    """
    seen: dict[object, str] = {}
    for label, item in zip(labels, claims, strict=True):
        kind = item.get("x-nvidia-device-type")
        prefix = _prefix(label)
        if kind is not None and prefix in _KINDS and kind != _KINDS[prefix]:
            raise refuse(f"{label} is the token of a device of kind {kind!r}", "device-kind")
        identity = item.get("ueid")
        if not isinstance(identity, str) or not identity:
            continue
        if identity in seen:
            raise refuse(
                f"{seen[identity]} and {label} are one device (ueid {identity[:80]})",
                "device-duplicate",
                hint="one good device was shown several times",
            )
        seen[identity] = label


class Expected(NamedTuple):
    """How many devices a token has to be about: of both kinds together, and of each; None for any number."""

    devices: int | None = None
    gpus: int | None = None
    switches: int | None = None


def check_counts(labels: Sequence[str], expected: Expected) -> None:
    """Refuse another number of devices than expected. Kinds are counted by the names of the submodules.

    Raises:
        TokenError: ``device-count``; also where kinds are expected and a name (``device_0``) tells none.
    """
    kinds = [_KINDS.get(_prefix(label)) for label in labels]
    if None in kinds and (expected.gpus, expected.switches) != (None, None):
        raise refuse(
            f"the token does not say of {labels[kinds.index(None)]} whether it is a GPU or a switch",
            "device-count",
            hint="expect a number of devices (--expected-devices) instead of GPUs and switches",
        )
    for word, found, wanted in (
        ("device", len(labels), expected.devices),
        ("GPU", kinds.count("gpu"), expected.gpus),
        ("NVSwitch", kinds.count("nvswitch"), expected.switches),
    ):
        if wanted is not None and found != wanted:
            many = "NVSwitches" if word == "NVSwitch" else ""
            raise refuse(f"the token is about {counted(found, word, many)}, expected {wanted}", "device-count")


def _prefix(label: str) -> str:
    return re.split(r"[-_0-9]", label, maxsplit=1)[0].upper()


def check_good_device(label: str, claims: Claims, *, weakened: bool) -> None:
    """Refuse a device that contradicts a good overall result.

    Raises:
        TokenError: ``overall-inconsistent``, with the claim that contradicts.
    """
    for name, good in _expected(claims, weakened=weakened):
        if claims.get(name) != good or type(claims.get(name)) is not type(good):
            raise _contradiction(label, name, claims.get(name))
    if not isinstance(claims.get("ueid"), str) or not claims["ueid"]:
        raise _contradiction(label, "ueid", claims.get("ueid"))
    if weakened:
        return
    for name, value in claims.items():
        if not _CHAIN.fullmatch(name):
            continue
        chain = value if isinstance(value, dict) else {}
        for member, good in (("x-nvidia-cert-status", "valid"), ("x-nvidia-cert-ocsp-status", "good")):
            if chain.get(member) != good:
                raise _contradiction(label, f"{name}.{member}", chain.get(member))


def _expected(claims: Claims, *, weakened: bool) -> list[tuple[str, object]]:
    prefix = "x-nvidia-switch" if any(name.startswith("x-nvidia-switch-") for name in claims) else "x-nvidia-gpu"
    wanted: list[tuple[str, object]] = [
        ("measres", "success"),
        ("x-nvidia-mismatch-measurement-records", None),
        ("x-nvidia-mismatch-opaque-data-records", None),
        (EAT_MEMBER, None),
        (f"{prefix}-attestation-report-signature-verified", True),
    ]
    wanted += [(name, True) for name in claims if _HARD.fullmatch(name)]
    if not weakened:
        wanted += [("secboot", True), ("dbgstat", "disabled"), (f"{prefix}-attestation-report-nonce-match", True)]
        wanted += [(name, True) for name in claims if _SOFT.fullmatch(name)]
    return wanted


def _contradiction(label: str, name: str, value: object) -> Exception:
    return refuse(
        f"the overall result is true, but {label} says {name} = {str(value)[:120]!r}",
        "overall-inconsistent",
        hint="do not believe this issuer",
    )
