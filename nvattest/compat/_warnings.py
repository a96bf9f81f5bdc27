"""The warning that an old program gets where the old behaviour was unsafe."""

from __future__ import annotations

import sys
import warnings
from pathlib import PurePath

from nvattest._text import clean

_PACKAGE = str(PurePath(__file__).parent)


NO_NONCE = (
    "revocation answers without a nonce are accepted, but only inside their signed validity window: the old SDK did "
    "not look at the window, so that a recording was good for ever."
)

FOREIGN_ANCHORS = (
    "NVATTEST_TRUST_ANCHORS names other trust anchors than NVIDIA's: what is said to be good is good by these. Under "
    "'nvattest simulate' that is so; anywhere else take the variable away."
)

HELD = (
    "{devices}: a certificate is on hold, that is, NVIDIA has suspended it, and it counts as good because of {why}. "
    "The old SDK did not say so."
)

FOREIGN_SERVICE = (
    "{issuer} verified, which is not NVIDIA's remote service{simulated}: what is said to be good is good by its word."
)


class MigrationWarning(UserWarning):
    """Something that NVIDIA's Python SDK did is done otherwise here; the text says what and why."""


def migrated(message: str) -> None:
    """Warn the caller of this package: the line that is named is the user's, however deep we are."""
    level, frame = 2, sys._getframe(1)  # noqa: SLF001 - warnings has skip_file_prefixes from 3.12 on only
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(clean(message), MigrationWarning, stacklevel=level)
