"""What NVML's return codes mean for somebody who has to do something about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from nvattest.errors import CollectionError, ResultCode

__all__ = ["FUNCTION_NOT_FOUND", "UNSUPPORTED_CODES", "nvml_error"]

FUNCTION_NOT_FOUND: Final = 13
# NOT_SUPPORTED, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH: codes of the errors that mean "this driver lacks it".
UNSUPPORTED_CODES: Final = frozenset({"nvml-not-supported", "nvml-function-missing", "nvml-version-mismatch"})


class _Meaning(NamedTuple):
    code: str
    text: str
    hint: str


_MEANINGS: Final[Mapping[int, _Meaning]] = {
    1: _Meaning("nvml-uninitialized", "NVML is not initialised", "another part of this process shut NVML down"),
    2: _Meaning("nvml-argument", "NVML refused an argument", "the driver may be older than this call"),
    3: _Meaning(
        "nvml-not-supported",
        "the GPU or the driver does not support this",
        "attestation needs a Hopper or Blackwell GPU with confidential computing, and driver 535 or newer",
    ),
    4: _Meaning(
        "nvml-permission",
        "no permission",
        "run as root, or give this user access to /dev/nvidiactl and /dev/nvidia*",
    ),
    6: _Meaning("nvml-not-found", "the driver did not find the GPU", "compare with: nvidia-smi -L"),
    7: _Meaning(
        "nvml-buffer", "an answer was larger than its buffer", "the driver library and its driver may not match"
    ),
    9: _Meaning(
        "driver-not-loaded",
        "the NVIDIA driver is not loaded",
        "load it (modprobe nvidia) and look at dmesg; in a guest, check that the GPU was passed through",
    ),
    10: _Meaning(
        "nvml-timeout",
        "the driver gave up waiting for the GPU",
        "look for Xid messages in dmesg; the GPU may need a reset",
    ),
    12: _Meaning("nvml-missing", "the NVML library was not found", "install the NVIDIA driver"),
    13: _Meaning(
        "nvml-function-missing",
        "the NVML library does not have this function",
        "the driver is too old for confidential computing; 535 or newer is needed",
    ),
    15: _Meaning(
        "gpu-lost",
        "the GPU is lost: it fell off the bus or is inaccessible",
        "look for Xid 79 in dmesg; the machine or the guest must be restarted",
    ),
    16: _Meaning(
        "gpu-reset-required", "the GPU must be reset", "reset it: nvidia-smi --gpu-reset, or restart the guest"
    ),
    17: _Meaning(
        "nvml-blocked", "the operating system blocked the request", "check cgroups, seccomp and the container's devices"
    ),
    18: _Meaning(
        "driver-mismatch",
        "the NVML library and the kernel driver have different versions",
        "reload the kernel modules or restart after a driver update",
    ),
    19: _Meaning("nvml-in-use", "the GPU is in use by another client", "stop programs that hold the GPU and try again"),
    20: _Meaning("nvml-memory", "the driver had not enough memory", "give the guest more memory"),
    21: _Meaning("nvml-no-data", "the driver has no data for this", "try again; then look at dmesg"),
    23: _Meaning("nvml-resources", "the driver lacks resources for this", "look at dmesg"),
    25: _Meaning(
        "nvml-version-mismatch", "the driver does not know this version of the structure", "update the driver"
    ),
    27: _Meaning(
        "nvml-not-ready", "the system is not ready for this request", "wait for the driver to initialise and try again"
    ),
    28: _Meaning("nvml-gpu-not-found", "no GPU was found", "in a guest, check that the GPU was passed through"),
    29: _Meaning(
        "nvml-invalid-state",
        "the driver is not in a state that allows this",
        "some settings must precede the ready state",
    ),
    999: _Meaning(
        "nvml-unknown",
        "the driver reports an unknown error",
        "look at the CC status first (nvidia-smi conf-compute -f): evidence calls answer so with CC off; then at dmesg",
    ),
}

# Failing with these while NVML initialises means that there is no usable driver.
_INIT_CALLS: Final = frozenset({"nvmlInit", "nvmlInitWithFlags"})
_NO_DRIVER: Final = frozenset({9, 12, 18})


def nvml_error(call: str, value: int, *, subject: str) -> CollectionError:
    """The error for ``call`` having returned ``value``; result code 500 where there is no driver, else 501."""
    meaning = _MEANINGS.get(value) or _Meaning(
        "nvml-error", "the driver reports an error that this program does not know", "look at dmesg"
    )
    no_driver = value in _NO_DRIVER or call in _INIT_CALLS
    return CollectionError(
        f"{subject}: {call} failed: {meaning.text} (NVML {value})",
        code=meaning.code,
        result_code=ResultCode.NVML_INIT_FAILED if no_driver else ResultCode.NVML_ERROR,
        hint=meaning.hint,
    )
