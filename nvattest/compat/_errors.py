"""Typed errors for the old SDK's habits, each also of the type that old code catches.

    NvattestError
    ├── InputError
    │   ├── CompatValueError (ValueError)                    a setter got something it cannot use
    │   │   └── InvalidNonceError                            not 64 hexadecimal digits, or none set
    │   ├── UnsupportedVerifierError (TypeError, ValueError) a pair of device and environment that nobody verifies
    │   ├── NoVerifierError (ValueError)                     attest or validate without a verifier: was true in places
    │   ├── NoEvidenceError (ValueError)                     no evidence, or a list that holds something else
    │   └── MissingParameterError (KeyError)                 cc_admin.attest without one of its parameters
    ├── PolicyError
    │   ├── PolicyFormatError (KeyError, TypeError, ValueError)   a policy of another shape
    │   └── PolicyJsonError (json.JSONDecodeError)           a policy that is not JSON
    └── TokenError
        └── TokenRefusedError (jwt.InvalidTokenError, IndexError) in _token_error

Collection failures are ``nvattest.CollectionError``, which ``except Exception`` catches as it caught NVIDIA's.
"""

from __future__ import annotations

import json

from nvattest.errors import InputError, PolicyError, ResultCode


class CompatValueError(InputError, ValueError):
    """A setter or a call got a value that it cannot use."""

    default_code = "compat-value"


class InvalidNonceError(CompatValueError):
    """A nonce that is not 64 hexadecimal digits."""

    default_code = "nonce-hex"


class UnsupportedVerifierError(InputError, TypeError, ValueError):
    """A pair of device and environment that cannot be verified; the old SDK accepted it, and some results were true."""

    default_code = "unsupported-verifier"


class NoVerifierError(InputError, ValueError):
    """There is no verifier; the old SDK gave a tuple, true or false, depending on where it was noticed."""

    default_code = "no-verifier"


class NoEvidenceError(InputError, ValueError):
    """There is no evidence to verify, or it is nothing that this package gave."""

    default_code = "no-evidence"


class MissingParameterError(InputError, KeyError):
    """One of the parameters of ``cc_admin.attest`` is missing."""

    default_code = "missing-parameter"

    def __str__(self) -> str:
        # KeyError would quote the message.
        return self.message


class PolicyFormatError(PolicyError, KeyError, TypeError, ValueError):
    """A policy that is JSON, and not one that the SDK or we can apply."""

    default_code = "policy"

    def __str__(self) -> str:
        # As above.
        return self.message


class PolicyJsonError(PolicyError, json.JSONDecodeError):
    """A policy that is not JSON; ``msg``, ``doc``, ``pos``, ``lineno`` and ``colno`` are JSONDecodeError's."""

    default_code = "policy-json"

    def __init__(self, error: json.JSONDecodeError) -> None:
        json.JSONDecodeError.__init__(self, error.msg, error.doc, error.pos)
        self.message = f"the policy is not JSON: {error}"
        self.code = self.default_code
        self.result_code = ResultCode.POLICY_EVALUATION_ERROR
        self.hint = "give the text of the policy, not the name of its file"

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (json.JSONDecodeError(self.msg, self.doc, self.pos),)
