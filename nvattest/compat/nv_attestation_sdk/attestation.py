"""``Attestation``: the one class of NVIDIA's Python SDK, for programs that were written for it.

    client = attestation.Attestation("node")
    client.set_nonce("931d…")
    client.add_verifier(attestation.Devices.GPU, attestation.Environment.LOCAL, "", "")
    client.attest(client.get_evidence())        # True or False
    client.get_token()                          # JSON text
    client.validate_token(policy)               # True or False

Each instance has its own state and its own token key, made in memory. Calls on the class itself, which the old SDK
allowed, work on one default instance: the first that was made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar

from nvattest._text import joined
from nvattest.compat._errors import (
    CompatValueError,
    InvalidNonceError,
    MissingParameterError,
    NoEvidenceError,
    NoVerifierError,
    PolicyFormatError,
    PolicyJsonError,
    UnsupportedVerifierError,
)
from nvattest.compat._warnings import MigrationWarning, migrated
from nvattest.compat.nv_attestation_sdk._class_level import class_or_instance
from nvattest.compat.nv_attestation_sdk._configured import Configured
from nvattest.compat.nv_attestation_sdk._words import Devices, Environment, VerifierFields, kind_of
from nvattest.errors import CollateralError, TokenError
from nvattest.model import Nonce, VerificationTime

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.compat._engine import LocalResult
    from nvattest.compat._token_error import TokenRefusedError
    from nvattest.evidence import Evidence
    from nvattest.pki.anchors import TrustAnchors
    from nvattest.policy.json_policy import JsonPolicy
    from nvattest.token.keys import SigningKey

__all__ = [
    "Attestation",
    "CompatValueError",
    "Devices",
    "Environment",
    "InvalidNonceError",
    "MigrationWarning",
    "MissingParameterError",
    "NoEvidenceError",
    "NoVerifierError",
    "PolicyFormatError",
    "PolicyJsonError",
    "TokenRefusedError",
    "UnsupportedVerifierError",
    "VerifierFields",
]


def __getattr__(name: str) -> Any:
    # It is a PyJWT error too, and PyJWT is loaded only when it is used.
    if name == "TokenRefusedError":
        from nvattest.compat import _token_error

        return _token_error.TokenRefusedError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Attestation(Configured):
    """A client of verifiers, with the methods of the old SDK.

    Args:
        name: under which the token is kept.
        anchors: trust anchors instead of NVIDIA's; ``NVATTEST_TRUST_ANCHORS`` names a file of them too.
        collateral: RIMs and revocation answers at hand; then nothing is asked of the network.
        at: the clock for a verification; now by default.
        token_key: the private key that signs tokens; by default a new one. Other processes verify tokens with
            ``public_key_pem``.
        verbose: print the progress lines of the old SDK on stdout. On unless ``NVATTEST_COMPAT_VERBOSE`` is ``0``.
    """

    _default: ClassVar[Attestation | None] = None

    def __init__(
        self,
        name: str | None = None,
        *,
        anchors: TrustAnchors | None = None,
        collateral: Collateral | None = None,
        at: VerificationTime | None = None,
        token_key: SigningKey | None = None,
        verbose: bool | None = None,
    ) -> None:
        super().__init__(name, anchors=anchors, verbose=verbose)
        self._tokens: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._reasons: list[str] = []
        self._collateral = collateral
        self._at = at
        self._key = token_key
        if Attestation._default is None:
            Attestation._default = self

    @classmethod
    def default(cls) -> Attestation:
        """The instance behind calls on the class itself."""
        if Attestation._default is None:
            Attestation._default = cls()
        return Attestation._default

    # --- evidence and verification ------------------------------------------------------------------------------------

    @class_or_instance
    def get_evidence(self, options: Mapping[str, Any] | None = None) -> list[Any]:
        """Collect evidence for the first verifier: handles for LOCAL, dictionaries for REMOTE.

        A nonce is made where none was set, and kept until ``set_nonce`` or ``reset``.

        Raises:
            NoVerifierError: there is none; the old SDK gave a tuple.
            CompatValueError: options that are no dict.
            CollectionError: the driver gave no evidence; the old SDK gave an empty list.
        """
        from nvattest.compat import _progress
        from nvattest.compat._engine import collect, new_nonce, read_nonce
        from nvattest.compat._handles import dictionaries, handles

        entry = self._first_verifier()
        if not self._nonce:
            self._nonce = new_nonce()
        if options is not None and not isinstance(options, Mapping):
            raise CompatValueError(f"options are a dict, not {type(options).__name__}")
        asked = {"ppcie_mode": True, "no_gpu_mode": False, **(options or {})}
        evidence = collect(
            kind_of(entry[VerifierFields.DEVICE]),
            read_nonce(self._nonce),
            ppcie_mode=bool(asked["ppcie_mode"]),
            no_gpu_mode=bool(asked["no_gpu_mode"]),
        )
        self._say(_progress.fetched(evidence))
        return handles(evidence) if entry[VerifierFields.ENVIRONMENT] == Environment.LOCAL else dictionaries(evidence)

    @class_or_instance
    def attest(self, evidence_list: list[Any] | None = None) -> bool:
        """Verify the evidence with every verifier and keep the token. Without evidence it is collected first.

        Returns:
            True only if every verifier trusts every device. Where NRAS gives no answer, or none that can be believed,
            it is False, as it was, ``get_reasons`` says why, and there is no token.

        Raises:
            NoVerifierError: there is no verifier.
            NoEvidenceError: an empty list, or one of something else.
            NvattestError: the evidence could not be collected.
        """
        from nvattest.compat._handles import evidence_of
        from nvattest.compat._tokens import make_token

        self._first_verifier()
        if evidence_list is None:
            evidence_list = self.get_evidence()
        if not self._nonce:
            raise InvalidNonceError(
                "no nonce was set: nothing shows that this evidence is fresh", code="nonce", hint="call set_nonce()"
            )
        nonce = Nonce.from_hex(self._nonce)
        # No old token may stand for a round that breaks off.
        self._tokens.pop(self._name, None)
        self._reasons = []
        verdicts: dict[str, bool] = {}
        parts: dict[str, object] = {}
        for entry in self._verifiers:
            name = entry[VerifierFields.NAME]
            evidence = evidence_of(evidence_list, kind_of(entry[VerifierFields.DEVICE]), nonce)
            remote = entry[VerifierFields.ENVIRONMENT] == Environment.REMOTE
            try:
                verdict, token = (self._remote if remote else self._local)(entry, evidence, nonce)
            except (CollateralError, TokenError) as error:
                self._reasons.append(f"{name}: {error}")
                self._say([f"{name}: {error}"])
                continue
            # Of two verifiers of one name the token has room for one: for the one that says no.
            if verdicts.get(name, True):
                verdicts[name], parts[name] = verdict, token
                self._counts[name] = len(evidence)
        if self._reasons:
            # A token without the part of a verifier would stand for a round in which it was never asked.
            return False
        self._tokens[self._name] = make_token(parts, nonce=nonce, key=self._signing_key())
        return bool(verdicts) and all(verdicts.values())

    def _local(self, entry: list[Any], evidence: tuple[Evidence, ...], nonce: Nonce) -> tuple[bool, object]:
        from nvattest.compat import _progress
        from nvattest.compat._engine import verify_locally
        from nvattest.token.claims import claims_of

        ocsp_url, rim_url = (entry[6], entry[7]) if len(entry) > VerifierFields.RIM_URL else ("", "")
        self._settings.ocsp_url, self._settings.rim_url = ocsp_url or None, rim_url or None
        result: LocalResult = verify_locally(
            evidence,
            nonce=nonce,
            claims_version=self._claims_version,
            settings=self._settings,
            key=self._signing_key(),
            known=self._collateral,
            at=self._at,
            offline=self._collateral is not None,
        )
        claims = claims_of(result.appraisal, version=self._claims_version)
        self._say(_progress.verified(result.appraisal, evidence, claims))
        return result.trusted, result.token

    def _remote(self, entry: list[Any], evidence: tuple[Evidence, ...], nonce: Nonce) -> tuple[bool, object]:
        from nvattest.compat._remote import attest_at_nras

        result = attest_at_nras(
            evidence,
            nonce=nonce,
            url=entry[VerifierFields.URL],
            claims_version=self._claims_version,
            settings=self._settings,
            at=self._at.device if self._at is not None else None,
        )
        self._say(result.reasons)
        return result.trusted, result.token

    # --- tokens -------------------------------------------------------------------------------------------------------

    @class_or_instance
    def get_token(self, x: str | None = None) -> str:
        """The token of this client, or of the name ``x``; an empty text if there is none."""
        return self._tokens.get(self._name if x is None else x, "")

    @class_or_instance
    def set_token(self, name: str, eat_token: str) -> None:
        """Keep a token under a name."""
        self._tokens[name] = eat_token

    @class_or_instance
    def decode_token(self, token: str) -> Any:
        """What a token says, unverified: for looking at, never for deciding.

        Raises:
            TokenRefusedError: it is no token.
        """
        from nvattest.compat.nv_attestation_sdk._validation import decoded

        return decoded(token)

    @class_or_instance
    def validate_token(self, policy: str, x: Any = None) -> bool | dict[str, bool]:
        """Verify a token and apply a JSON policy of the old SDK (file versions 2.0, 3.0, 4.0).

        ``x`` is a token, or tokens by name; without it the client's own is taken. Signatures, digests, the nonce and
        the number of devices are checked, which the old SDK did not do. ``get_reasons`` says why it is False.

        Returns:
            False where the policy is not met, where a verifier of the token is not configured, where the keys of NRAS
            cannot be had, or where there is no token; for tokens by name also where one must not be believed.

        Raises:
            PolicyJsonError, PolicyFormatError: the policy cannot be used.
            TokenRefusedError: the one token must not be believed.
        """
        from nvattest.compat.nv_attestation_sdk._validation import read_policy

        rules = read_policy(policy)
        self._reasons = []
        if x is None:
            x = self._tokens.get(self._name, "")
        if isinstance(x, str):
            return self._validate(rules, x)
        if not isinstance(x, Mapping):
            self._reasons.append(f"a token is a text, or a dict of them by name, not {type(x).__name__}")
            return False
        results: dict[str, bool] = {}
        for name, token in x.items():
            try:
                results[name] = isinstance(token, str) and self._validate(rules, token)
            except (TokenError, NoVerifierError, InvalidNonceError) as error:
                self._reasons.append(f"{name}: {error}")
                results[name] = False
        return results

    @class_or_instance
    def get_reasons(self) -> list[str]:
        """Why the last ``validate_token`` was False, or why the last ``attest`` has no token."""
        return list(self._reasons)

    def _validate(self, rules: JsonPolicy, token: str) -> bool:
        from nvattest.compat.nv_attestation_sdk._validation import Expected, validate

        if not token:
            self._reasons.append("there is no token: attest() was not called, or it broke off")
            return False
        self._first_verifier()
        if not self._nonce:
            raise InvalidNonceError(
                "no nonce is set: nothing shows that this token answers a request of yours",
                code="nonce",
                hint="call set_nonce() with the nonce that the token was asked for",
            )
        expected = Expected(
            nonce=Nonce.from_hex(self._nonce),
            key=self._signing_key().public,
            at=self._at.device if self._at is not None else datetime.now(timezone.utc),
            verifiers=self._verifiers,
            counts=self._counts,
            settings=self._settings,
        )
        good, reasons = validate(token, rules, expected)
        self._reasons += reasons
        return good

    @class_or_instance
    def public_key_pem(self) -> bytes:
        """The public half of the key that signs this client's tokens, as PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._signing_key().public.native().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @class_or_instance
    def reset(self) -> None:
        """Forget nonce, nonce server, verifiers and tokens; name, service key and versions stay."""
        self._nonce = ""
        self._nonce_server = ""
        self._verifiers.clear()
        self._tokens.clear()
        self._counts.clear()
        self._reasons.clear()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _signing_key(self) -> SigningKey:
        if self._key is None:
            from nvattest.token.keys import SigningKey

            self._key = SigningKey.generate()
            migrated(
                "tokens are signed with ES384 under a key of this process (public_key_pem). The old SDK signed with "
                "HS256 under the words 'secret' and 'notasecret', so that anybody could write such a token."
            )
        return self._key

    def _say(self, lines: Any) -> None:
        verbose = self._verbose
        if verbose is None:
            verbose = os.environ.get("NVATTEST_COMPAT_VERBOSE", "1") != "0"
        if verbose:
            for line in lines:
                print(joined([line]), file=sys.stdout)
