"""The old name of ``nvattest.compat.verifier``."""

__all__ = ["cc_admin"]
