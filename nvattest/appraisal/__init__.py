"""The story of one device and of a platform, and its results as values and as JSON."""

from __future__ import annotations

from typing import Final

# The format of ``schemas/appraisal-1.json``.
FORMAT: Final = "nvattest-appraisal"
VERSION: Final = 1
