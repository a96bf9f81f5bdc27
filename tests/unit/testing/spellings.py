"""One spelling of every lie, a platform on which it can be seen, and what the verifier says of it."""

from __future__ import annotations

import nvattest
from nvattest.model import Nonce
from nvattest.testing import DEFAULT_NONCE, LIES, Platform, Scope

# One spelling per lie, on a platform where it can be seen.
EXAMPLES: dict[tuple[str, Scope], str] = {}
_ARGUMENTS = {
    "measurement": "9", "measurement-missing": "9", "measurement-duplicate": "9", "field": "3,353500",
    "field-missing": "3", "field-duplicate": "20", "driver-version": "999.1", "firmware-version": "96.00.00.00.02",
    "nvdec0": "off", "feature": "spt", "svn": "1", "opaque-version": "3", "opaque-profile": "1", "spdm-version": "12",
    "tamper": "100", "truncate": "1", "trailing": "00112233445566778899", "chain-of": "gpu1", "chain-missing": "2", "chain-swapped": "1",
    "chain-repeated": "1", "chip": "GB100", "leaf-chip": "GB100", "pdi": "0102030405060708", "chain-signature": "1", "not-a-ca": "1",
    "key-usage": "1", "critical": "1", "algorithm": "1", "expired": "1", "not-yet-valid": "1", "duplicate": "gpu1",
    "hint-driver": "1.2", "hint-firmware": "1.2", "golden": "9", "conflict": "0", "min-svn": "9", "tampered": "30",
    "xml": "dtd", "ocsp-status": "1,tryLater", "pcie-mode": "1",
}  # fmt: skip
OF_SWITCHES = {"unlocked"}
for _spec in LIES:
    for _scope in sorted(_spec.scopes, key=lambda scope: scope.value):
        _target = {Scope.DEVICE: "gpu0", Scope.RIM: "driver-rim", Scope.PLATFORM: "platform"}[_scope]
        _target = "switch0" if _spec.name in OF_SWITCHES else _target
        _argument = _ARGUMENTS.get(_spec.name, "1" if _spec.argument.startswith("POSITION") else None)
        EXAMPLES[_spec.name, _scope] = f"{_target}:{_spec.name}" + ("" if _argument is None else f"={_argument}")


VERSIONED = {"svn", "opaque-profile", "one-gpu-other-mode", "opaque-version", "debug", "min-svn", "multi-tcb-info"}
SEVERAL = {"chain-of", "duplicate", "topology", "pdi", "feature", "nvdec0", "pcie-mode"} | OF_SWITCHES


def platform_for(spelling: str) -> str:
    """The smallest platform on which this lie can be seen."""
    name = spelling.partition(":")[2].partition("=")[0]
    if name in VERSIONED:
        return "blackwell-2"
    return "hopper-8-ppcie" if name in SEVERAL else "hopper-1"


def appraise(name: str, *lies: str, driver: str | None = None) -> nvattest.Appraisal:
    """What the signed evidence of a platform shows, without a word of its driver."""
    node = Platform.build(name, lies=lies, driver_version=driver)
    return nvattest.verify(
        node.evidence(DEFAULT_NONCE),
        collateral=node.collateral(),
        nonce=Nonce(DEFAULT_NONCE),
        at=node.time,
        anchors=node.trust_anchors(),
    )
