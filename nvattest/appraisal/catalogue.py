"""The checks by name: number in the story, title, and the result code and place that NVIDIA's tools give them.

The numbers are those of the story in ``device.py`` (1 to 19) and ``platform.py`` (20 to 25). ``rank`` is the place at
which NVIDIA's verifier meets a failure (NVAT 1.2.2, local GPU and switch order); ours goes on and reports them all, and
the rank chooses the one result code that a shell sees.
"""

from __future__ import annotations

from typing import NamedTuple

from nvattest.errors import ResultCode
from nvattest.model import DeviceKind


class CheckSpec(NamedTuple):
    """What is fixed about a check."""

    id: str
    step: int
    title: str
    rank: int
    gpu: ResultCode
    switch: ResultCode

    def code(self, kind: DeviceKind) -> ResultCode:
        """The result code of a failure on this kind of device."""
        return self.gpu if kind is DeviceKind.GPU else self.switch


def _spec(
    id: str,  # noqa: A002
    step: int,
    title: str,
    rank: int,
    gpu: ResultCode = ResultCode.OVERALL_RESULT_FALSE,
    switch: ResultCode | None = None,
) -> CheckSpec:
    return CheckSpec(id=id, step=step, title=title, rank=rank, gpu=gpu, switch=gpu if switch is None else switch)


_C = ResultCode

_DEVICE = (
    _spec("report-format", 1, "the report reads as SPDM", 30, _C.GPU_EVIDENCE_INVALID, _C.EVIDENCE_MALFORMED),
    _spec(
        "report-trailing-bytes",
        1,
        "nothing follows the report's signature",
        31,
        _C.GPU_EVIDENCE_INVALID,
        _C.EVIDENCE_MALFORMED,
    ),
    _spec("chain-format", 2, "the certificate chain can be read", 10, _C.EVIDENCE_MALFORMED),
    _spec("chain-path", 3, "the chain leads to the pinned device root", 60, _C.CERT_CHAIN_VERIFICATION_FAILURE),
    _spec("chain-validity", 4, "all device certificates are in their validity period", 61),
    _spec(
        "report-signature",
        5,
        "the report is signed by the device's leaf key",
        20,
        _C.GPU_INVALID_SIGNATURE,
        _C.SWITCH_INVALID_SIGNATURE,
    ),
    _spec("nonce", 6, "the report answers our nonce", 40, _C.GPU_EVIDENCE_NONCE_MISMATCH, _C.SWITCH_NONCE_MISMATCH),
    _spec(
        "architecture",
        7,
        "chain, report and evidence name one architecture",
        66,
        _C.GPU_ARCHITECTURE_NOT_SUPPORTED,
        _C.SWITCH_ARCHITECTURE_NOT_SUPPORTED,
    ),
    _spec(
        "fwid",
        8,
        "the firmware id of the report is the certified one",
        50,
        _C.GPU_FWID_MISMATCH,
        _C.SWITCH_FWID_MISMATCH,
    ),
    _spec("debug", 9, "the device is not in a debug state", 51),
    _spec("chain-revocation", 10, "no device certificate is revoked", 65),
    _spec("mode", 17, "the device runs in a known and allowed mode", 70, _C.SPDM_FIELD_NOT_FOUND),
    _spec("versions", 18, "the versions are allowed by the policy", 900),
    _spec("hints", 19, "what the driver said beside the report agrees with it", 901),
    _spec("reference-values", 11, "reference values are published for this device", 99, _C.RIM_NOT_FOUND),
    _spec("rim-conflict", 14, "no golden value is claimed by both RIMs", 300, _C.RIM_MEASUREMENT_CONFLICT),
    _spec("measurements", 15, "the measurements match the golden values", 310),
    _spec("minimum-svn", 16, "security version numbers are high enough", 311),
)


def _rim_specs(role: str, word: str, base: int, version: tuple[ResultCode, ResultCode]) -> tuple[CheckSpec, ...]:
    schema, signature = _C.RIM_INVALID_SCHEMA, _C.RIM_INVALID_SIGNATURE
    return (
        _spec(f"{role}-rim-available", 11, f"the {word} RIM is there", base, _C.RIM_NOT_FOUND),
        _spec(f"{role}-rim-format", 11, f"the {word} RIM follows the profile", base + 1, schema),
        _spec(f"{role}-rim-signature", 12, f"the {word} RIM is signed by its leaf key", base + 4, signature),
        _spec(
            f"{role}-rim-chain",
            12,
            f"the {word} RIM's chain leads to the pinned RIM root",
            base + 3,
            _C.CERT_CHAIN_VERIFICATION_FAILURE,
        ),
        _spec(f"{role}-rim-validity", 12, f"the {word} RIM's signers are in their validity period", base + 3),
        _spec(f"{role}-rim-revocation", 12, f"no signer of the {word} RIM is revoked", base + 3),
        _spec(f"{role}-rim-binding", 13, f"the {word} RIM describes this device", base + 2, *version),
    )


_RIMS = (
    *_rim_specs("driver", "driver", 100, (_C.GPU_DRIVER_RIM_VERSION_MISMATCH, _C.GPU_DRIVER_RIM_VERSION_MISMATCH)),
    *_rim_specs("vbios", "VBIOS", 200, (_C.GPU_VBIOS_RIM_VERSION_MISMATCH, _C.GPU_VBIOS_RIM_VERSION_MISMATCH)),
    *_rim_specs("bios", "BIOS", 200, (_C.SWITCH_VBIOS_RIM_VERSION_MISMATCH, _C.SWITCH_VBIOS_RIM_VERSION_MISMATCH)),
)

_PLATFORM = (
    _spec("devices-trusted", 20, "every device is trusted", 1000),
    _spec("devices-present", 21, "there is at least one device, and as many as expected", 1001),
    _spec("devices-distinct", 22, "no device appears twice", 1002),
    _spec("one-nonce", 23, "all devices answered one nonce", 1003),
    _spec("one-mode", 24, "all GPUs run in one mode", 1004),
    _spec("topology", 25, "GPUs and switches are protected, and name each other and no others", 1005),
)

CHECKS: dict[str, CheckSpec] = {spec.id: spec for spec in (*_DEVICE, *_RIMS, *_PLATFORM)}

_RIM_SUFFIXES = ("available", "format", "signature", "chain", "validity", "revocation", "binding")


def rim_checks(role: str) -> tuple[str, ...]:
    """The ids of the checks of one RIM, in order; ``role`` is ``driver``, ``vbios`` or ``bios``."""
    return tuple(f"{role}-rim-{suffix}" for suffix in _RIM_SUFFIXES)


_COMMON = (
    "report-format",
    "report-trailing-bytes",
    "chain-format",
    "chain-path",
    "chain-validity",
    "report-signature",
    "nonce",
    "architecture",
    "fwid",
    "debug",
    "chain-revocation",
)
_AFTER = ("rim-conflict", "measurements", "minimum-svn", "mode", "versions", "hints")

# What must be there, whatever its outcome, before a verdict can be "trusted".
REQUIRED: dict[DeviceKind, tuple[str, ...]] = {
    DeviceKind.GPU: (*_COMMON, *rim_checks("driver"), *rim_checks("vbios"), *_AFTER),
    DeviceKind.NVSWITCH: (*_COMMON, *rim_checks("bios"), *_AFTER),
}
REQUIRED_PLATFORM: tuple[str, ...] = tuple(spec.id for spec in _PLATFORM)
