"""The error for a token that must not be believed. Apart from the others, because it needs PyJWT to be loaded."""

from __future__ import annotations

import jwt

from nvattest.errors import TokenError


class TokenRefusedError(TokenError, jwt.InvalidTokenError, IndexError):
    """A token that must not be believed; also what PyJWT raised in the old SDK, and the IndexError for ``[]``."""

    @classmethod
    def of(cls, error: TokenError) -> TokenRefusedError:
        """The same refusal, in the type that old code catches."""
        return cls(error.message, code=error.code, result_code=error.result_code, hint=error.hint)
