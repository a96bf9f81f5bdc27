"""Live devices: evidence from GPUs (NVML) and NVSwitches (NSCQ), the system's state, and the ready state.

Nothing is loaded before it is asked for. Every call into a driver runs in a daemon thread under a deadline, since a C
call cannot be interrupted; one that does not return in time is reported by name and left behind.
"""

from __future__ import annotations

from nvattest.devices.collect import collect_gpus, collect_switches
from nvattest.devices.nvml import NvmlLibrary
from nvattest.devices.ready import TrustedPlatform, read_ready, set_not_ready, set_ready
from nvattest.devices.state import Environment, MultiGpuMode, SystemState, read_state, require_evidence_mode

__all__ = [
    "Environment",
    "MultiGpuMode",
    "NvmlLibrary",
    "SystemState",
    "TrustedPlatform",
    "collect_gpus",
    "collect_switches",
    "read_ready",
    "read_state",
    "require_evidence_mode",
    "set_not_ready",
    "set_ready",
]
