"""The old name of ``nvattest.compat.verifier.cc_admin``, as a module and as the command ``python -m``."""

import sys

from nvattest.compat.verifier import cc_admin

if __name__ == "__main__":
    sys.exit(cc_admin.main())

# As in nv_attestation_sdk.
sys.modules[__name__] = cc_admin
