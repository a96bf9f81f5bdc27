"""``nv_attestation_sdk`` as NVIDIA's 2.7 has it: ``attestation`` with ``Attestation``, ``Devices``, ``Environment``."""

from __future__ import annotations

from nvattest.compat.nv_attestation_sdk import attestation

__all__ = ["attestation"]
