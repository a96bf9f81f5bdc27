"""The old name of ``nvattest.compat.verifier``."""

import sys

from nvattest.compat.verifier import cc_admin

# As in nv_attestation_sdk.
sys.modules[__name__ + ".cc_admin"] = cc_admin

__all__ = ["cc_admin"]
