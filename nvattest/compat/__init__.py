"""Drop-in fronts for programs that were written for NVIDIA's Python packages. Public: the names in ``__all__``.

    from nvattest.compat.nv_attestation_sdk import attestation     # was: from nv_attestation_sdk import attestation
    from nvattest.compat.verifier import cc_admin                  # was: from verifier import cc_admin

Unsafe behaviour is refused or fixed here, and a ``MigrationWarning`` says what and why. ``nvattest migrate check``
lists which of it a project uses. An import writes no file, sets up no logger and asks no driver.

Old code catches these errors by their old types. Collection failures are ``nvattest.CollectionError``, which ``except
Exception`` catches as it caught NVIDIA's. A token that must not be believed is a ``TokenRefusedError``, in ``_tokens``
because it needs PyJWT.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import PurePath

from nvattest._text import clean
from nvattest.errors import InputError, PolicyError, ResultCode

__all__ = ["MigrationWarning"]

_PACKAGE = str(PurePath(__file__).parent)


class MigrationWarning(UserWarning):
    """A difference to NVIDIA's Python SDK, and its reason."""


def migrated(message: str) -> None:
    """Warn of the line that called this package, however deep the call is."""
    level, frame = 2, sys._getframe(1)  # noqa: SLF001 - warnings has skip_file_prefixes from 3.12 on only
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(clean(message), MigrationWarning, stacklevel=level)


class CompatValueError(InputError, ValueError):
    """A setter or a call got a value that it cannot use."""

    default_code = "compat-value"


class InvalidNonceError(CompatValueError):
    """A nonce that is not 64 hexadecimal digits, or none."""

    default_code = "nonce-hex"


class UnsupportedVerifierError(InputError, TypeError, ValueError):
    """A pair of device and environment that cannot be verified; the old SDK accepted it, and some results were true."""

    default_code = "unsupported-verifier"


class NoVerifierError(InputError, ValueError):
    """There is no verifier; the old SDK returned a tuple, true or false, depending on the call."""

    default_code = "no-verifier"


class NoEvidenceError(InputError, ValueError):
    """There is no evidence to verify, or an item is none that this package gave."""

    default_code = "no-evidence"


class MissingParameterError(InputError, KeyError):
    """One of the parameters of ``cc_admin.attest`` is missing."""

    default_code = "missing-parameter"


class PolicyFormatError(PolicyError, KeyError, TypeError, ValueError):
    """A policy that is JSON and cannot be applied."""

    default_code = "policy"


class PolicyJsonError(PolicyError, json.JSONDecodeError):
    """A policy that is not JSON; ``msg``, ``doc``, ``pos``, ``lineno`` and ``colno`` are JSONDecodeError's."""

    default_code = "policy-json"

    def __init__(self, error: json.JSONDecodeError) -> None:
        json.JSONDecodeError.__init__(self, error.msg, error.doc, error.pos)
        self.message = f"the policy is not JSON: {error}"
        self.code = self.default_code
        self.result_code = ResultCode.POLICY_EVALUATION_ERROR
        self.hint = "give the text of the policy, not the name of its file"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (json.JSONDecodeError(self.msg, self.doc, self.pos),)
