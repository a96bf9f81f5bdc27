"""The old name of ``nvattest.compat.nv_attestation_sdk``."""

import sys

from nvattest.compat.nv_attestation_sdk import attestation

# The same module under both names, so that classes and enumerations are the same objects.
sys.modules[__name__ + ".attestation"] = attestation

__all__ = ["attestation"]
