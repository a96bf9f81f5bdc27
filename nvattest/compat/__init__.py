"""Drop-in fronts for programs that were written for NVIDIA's Python packages. Public: the names in ``__all__``.

    from nvattest.compat.nv_attestation_sdk import attestation     # was: from nv_attestation_sdk import attestation
    from nvattest.compat.verifier import cc_admin                  # was: from verifier import cc_admin

Unsafe behaviour is refused or fixed here, and a ``MigrationWarning`` says what and why. ``nvattest migrate check``
lists which of it a project uses. An import writes no file, sets up no logger and asks no driver.
"""

from __future__ import annotations

from nvattest.compat._errors import MigrationWarning

__all__ = ["MigrationWarning"]
