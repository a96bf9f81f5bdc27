"""From checks to the trustworthiness vector of AR4SI (draft-ietf-rats-ar4si, 2.3).

==================  =========================================================================  ====  =====  ======
claim               checks                                                                     good  warn   bad
==================  =========================================================================  ====  =====  ======
instance-identity   chain, its validity and revocation, nonce, FWID, hints                     2     -      97, 96
hardware            architecture, report format                                                2     32     97
executables         RIMs, measurements, security versions                                      3     33     96
configuration       debug state, mode, versions, and for the platform all of its checks        2     32     96
==================  =========================================================================  ====  =====  ======

"Bad" is a check that prevents trust; "warn" one that passes only because of a named weakening of the policy. AR4SI
has no warning for identities: there the weakening is a vulnerable configuration (32).
Executables are 3, not 2: the measurements cover what was loaded up to the report. A report whose signature fails is 99
in every claim, as the draft has it. Nothing is said of memory encryption (runtime-opaque): the report does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from nvattest.appraisal.check import Check
from nvattest.appraisal.results import Appraisal, DeviceAppraisal

VECTOR_CLAIMS: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
CRYPTO_FAILED: Final = 99

_GOOD = {"instance-identity": 2, "hardware": 2, "executables": 3, "configuration": 2}
_WARNING = {"hardware": 32, "executables": 33, "configuration": 32}
_BAD = {"instance-identity": 96, "hardware": 97, "executables": 96, "configuration": 96}
_UNRECOGNISED_INSTANCE = 97

_IDENTITY = frozenset(
    {"chain-format", "chain-path", "chain-validity", "chain-revocation", "report-signature", "nonce", "fwid", "hints"}
)
_HARDWARE = frozenset({"architecture", "report-format", "report-trailing-bytes"})
_EXECUTABLES = frozenset({"reference-values", "rim-conflict", "measurements", "minimum-svn"})
_UNKNOWN_PATH = frozenset({"chain-format", "chain-path"})


class Tier(IntEnum):
    """The trustworthiness tiers, from best to worst; NONE says that nothing is claimed."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96

    @property
    def word(self) -> str:
        """The tier as ``ear.status`` spells it."""
        return self.name.lower()


def tier_of(value: int) -> Tier:
    """The tier of one claim of the vector, -128 to 127 (AR4SI, 2.2)."""
    if -1 <= value <= 1:
        return Tier.NONE
    if 2 <= value <= 31 or -32 <= value <= -2:
        return Tier.AFFIRMING
    if 32 <= value <= 95 or -96 <= value <= -33:
        return Tier.WARNING
    return Tier.CONTRAINDICATED


def worst_tier(vector: dict[str, int]) -> Tier:
    """The worst tier of a vector: its status."""
    return max((tier_of(value) for value in vector.values()), default=Tier.NONE)


def device_vector(device: DeviceAppraisal, *, simulated: bool) -> dict[str, int]:
    """The vector of one device. A simulated one is at most a warning, in words that every reader of EARs has."""
    signature = device.check("report-signature")
    if signature is not None and not signature.acceptable and not _unjudged(signature):
        return dict.fromkeys(VECTOR_CLAIMS, CRYPTO_FAILED)
    vector = _vector(device.checks)
    if simulated:
        vector["hardware"] = max(vector["hardware"], _WARNING["hardware"])
    # A missing check lowers no claim, and the verdict is still no.
    if not device.trusted and worst_tier(vector) is not Tier.CONTRAINDICATED:
        vector["configuration"] = _BAD["configuration"]
    return vector


def platform_vector(appraisal: Appraisal, *, trusted: bool, weakened: bool) -> dict[str, int]:
    """The vector of the platform, from the checks of all devices together. The verdict and the mark are the token's."""
    value = _GOOD["configuration"]
    for check in appraisal.checks:
        value = max(value, _value("configuration", check))
    if weakened or appraisal.simulated:
        value = max(value, _WARNING["configuration"])
    if not trusted:
        value = max(value, _BAD["configuration"])
    return {"configuration": value}


def _vector(checks: Iterable[Check]) -> dict[str, int]:
    vector = dict(_GOOD)
    for check in checks:
        name = _claim_of(check)
        if _weakened(check) and name not in _WARNING:
            name = "configuration"
        vector[name] = max(vector[name], _value(name, check))
    return vector


def _value(name: str, check: Check) -> int:
    if not check.acceptable:
        return _UNRECOGNISED_INSTANCE if check.id in _UNKNOWN_PATH else _BAD[name]
    return _WARNING[name] if _weakened(check) else _GOOD[name]


def _weakened(check: Check) -> bool:
    # Only a weakening makes a warning; an allowance of the strict policy (a topology of one kind alone) does not.
    return check.acceptable and check.tolerated_by.startswith(("accept_", "allow_"))


def _claim_of(check: Check) -> str:
    if check.id in _IDENTITY:
        return "instance-identity"
    if check.id in _HARDWARE:
        return "hardware"
    if check.id in _EXECUTABLES or "-rim-" in check.id:
        return "executables"
    return "configuration"


def _unjudged(check: Check) -> bool:
    return check.outcome.value == "skipped"
