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
from nvattest.compat._settings import Settings, nras_default
from nvattest.compat._warnings import NO_NONCE, MigrationWarning, migrated
from nvattest.compat.nv_attestation_sdk._class_level import class_or_instance
from nvattest.compat.nv_attestation_sdk._words import Devices, Environment, VerifierFields, kind_of, verifier_name
from nvattest.errors import NvattestError, TokenError
from nvattest.model import Nonce, VerificationTime

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.results import Appraisal
    from nvattest.compat._engine import LocalResult
    from nvattest.compat._token_error import TokenRefusedError
    from nvattest.compat._tokens import Trust
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


class Attestation:
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
        self._name = "" if name is None else str(name)
        self._nonce = ""
        self._nonce_server = ""
        self._claims_version = "2.0"
        self._verifiers: list[list[Any]] = []
        self._tokens: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._reasons: list[str] = []
        self._appraisals: dict[str, Appraisal] = {}
        self._settings = Settings(anchors=anchors)
        self._collateral = collateral
        self._at = at
        self._key = token_key
        self._verbose = verbose
        if Attestation._default is None:
            Attestation._default = self

    @classmethod
    def default(cls) -> Attestation:
        """The instance behind calls on the class itself."""
        if Attestation._default is None:
            Attestation._default = cls()
        return Attestation._default

    # --- settings -----------------------------------------------------------------------------------------------------

    @class_or_instance
    def set_name(self, name: str) -> None:
        """Set the key under which the token is kept."""
        self._name = str(name)

    @class_or_instance
    def get_name(self) -> str:
        """The key under which the token is kept."""
        return self._name

    @class_or_instance
    def set_nonce(self, nonce: str) -> None:
        """Set the nonce for the evidence: 64 hexadecimal digits.

        Raises:
            InvalidNonceError: something else; the old SDK noticed only later.
        """
        from nvattest.compat._engine import read_nonce

        self._nonce = read_nonce(nonce).hex()

    @class_or_instance
    def get_nonce(self) -> str:
        """The nonce, or an empty text."""
        return self._nonce

    @class_or_instance
    def set_service_key(self, service_key: str | None) -> None:
        """Set the key for NVIDIA's services; it goes over https only."""
        self._settings.service_key = service_key

    @class_or_instance
    def get_service_key(self) -> str | None:
        """The key that was set or that the environment has, or None."""
        return self._settings.key() or None

    @class_or_instance
    def set_nonce_server(self, url: str) -> None:
        """Keep a URL; nothing ever used it."""
        self._nonce_server = url

    @class_or_instance
    def get_nonce_server(self) -> str:
        """The URL that was kept."""
        return self._nonce_server

    @class_or_instance
    def set_ocsp_nonce_disabled(self, ocsp_nonce_disabled: bool) -> None:
        """Accept revocation answers without our nonce, inside their validity window; the token names this weakening.

        Raises:
            CompatValueError: not a bool.
        """
        if not isinstance(ocsp_nonce_disabled, bool):
            raise CompatValueError("ocsp_nonce_disabled is True or False")
        if ocsp_nonce_disabled:
            migrated(NO_NONCE)
        self._settings.ocsp_nonce_disabled = ocsp_nonce_disabled

    @class_or_instance
    def get_ocsp_nonce_disabled(self) -> bool:
        """Whether answers without a nonce are accepted."""
        return self._settings.ocsp_nonce_disabled

    @class_or_instance
    def set_allow_hold_cert(self, allow: bool | None) -> None:
        """Accept certificates on hold; None leaves it to ``NV_ALLOW_HOLD_CERT``. The token names this weakening."""
        self._settings.allow_hold_cert = allow

    @class_or_instance
    def set_claims_version(self, claims_version: str) -> None:
        """Choose claims 2.0 (the default) or 3.0.

        Raises:
            CompatValueError: another version.
        """
        from nvattest.compat._engine import check_claims_version

        self._claims_version = check_claims_version(claims_version)

    @class_or_instance
    def get_claims_version(self) -> str:
        """The version of the claims."""
        return self._claims_version

    @class_or_instance
    def set_verbose(self, verbose: bool) -> None:
        """Print progress lines on stdout, or not."""
        self._verbose = bool(verbose)

    # --- verifiers ----------------------------------------------------------------------------------------------------

    @class_or_instance
    def add_verifier(
        self, dev: Devices, env: Environment, url: str = "", evidence: str = "", ocsp_url: str = "", rim_url: str = ""
    ) -> None:
        """Add a verifier. ``evidence`` is kept and never read, as in the old SDK.

        Raises:
            UnsupportedVerifierError: nobody can verify this pair.
        """
        name = verifier_name(dev, env)
        if env == Environment.REMOTE and not url:
            url = nras_default(switch=dev == Devices.SWITCH)
        entry: list[Any] = [name, dev, env, url, evidence, ""]
        self._verifiers.append([*entry, ocsp_url, rim_url] if ocsp_url or rim_url else entry)

    @class_or_instance
    def get_verifiers(self) -> list[list[Any]]:
        """The list of verifiers itself: ``[name, device, environment, url, evidence, ""]``, with URLs if given."""
        return self._verifiers

    @class_or_instance
    def clear_verifiers(self) -> None:
        """Remove all verifiers."""
        self._verifiers.clear()

    @class_or_instance
    def get_verifier_by_name(self, verifier_name: str) -> list[Any] | None:
        """The first verifier of this name."""
        return next((entry for entry in self._verifiers if entry[VerifierFields.NAME] == verifier_name), None)

    # --- evidence and verification ------------------------------------------------------------------------------------

    @class_or_instance
    def get_evidence(self, options: Mapping[str, Any] | None = None) -> list[Any]:
        """Collect evidence for the first verifier: handles for LOCAL, dictionaries for REMOTE.

        A nonce is made where none was set, and kept until ``set_nonce`` or ``reset``.

        Raises:
            NoVerifierError: there is none; the old SDK gave a tuple.
            CollectionError: the driver gave no evidence; the old SDK gave an empty list.
        """
        from nvattest.compat import _progress
        from nvattest.compat._engine import collect, new_nonce, read_nonce
        from nvattest.compat._handles import dictionaries, handles

        entry = self._first_verifier()
        if not self._nonce:
            self._nonce = new_nonce()
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
            True only if every verifier trusts every device.

        Raises:
            NoVerifierError: there is no verifier.
            NoEvidenceError: an empty list, or one of something else.
            NvattestError: the evidence could not be collected, or NRAS gave no answer that can be believed.
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
        verdicts: list[bool] = []
        parts: dict[str, object] = {}
        for entry in self._verifiers:
            name = entry[VerifierFields.NAME]
            evidence = evidence_of(evidence_list, kind_of(entry[VerifierFields.DEVICE]), nonce)
            remote = entry[VerifierFields.ENVIRONMENT] == Environment.REMOTE
            verdict, token = (self._remote if remote else self._local)(entry, evidence, nonce)
            verdicts.append(verdict)
            parts[name] = token
            self._counts[name] = len(evidence)
        self._tokens[self._name] = make_token(parts, nonce=nonce, key=self._signing_key())
        return bool(verdicts) and all(verdicts)

    def _local(self, entry: list[Any], evidence: tuple[Evidence, ...], nonce: Nonce) -> tuple[bool, object]:
        from nvattest.claims import claims_of
        from nvattest.compat import _progress
        from nvattest.compat._engine import verify_locally

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
        self._appraisals[entry[VerifierFields.NAME]] = result.appraisal
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
            at=self._token_time(),
        )
        return result.trusted, result.token

    @class_or_instance
    def get_appraisal(self, verifier_name: str) -> Appraisal | None:
        """Every check of the last local round of this verifier; the old SDK had no such thing."""
        return self._appraisals.get(verifier_name)

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
        import jwt

        from nvattest._json import load_json

        def said(item: Any) -> Any:
            if isinstance(item, str) and item.count(".") == 2:
                try:
                    return jwt.decode(item, options={"verify_signature": False})
                except jwt.PyJWTError:
                    return item
            if isinstance(item, list):
                return [said(member) for member in item]
            return {key: said(value) for key, value in item.items()} if isinstance(item, dict) else item

        try:
            return said(load_json(token, source="token", maximum=4 * 1024 * 1024))
        except (NvattestError, RecursionError) as error:
            raise _refused(TokenError(f"not a token of the SDK: {error}", code="malformed")) from None

    @class_or_instance
    def validate_token(self, policy: str, x: Any = None) -> bool | dict[str, bool]:
        """Verify a token and apply a JSON policy of the old SDK (file versions 2.0, 3.0, 4.0).

        ``x`` is a token, or tokens by name; without it the client's own is taken. Signatures, digests, the nonce and
        the number of devices are checked, which the old SDK did not do. ``get_reasons`` says why it is False.

        Returns:
            False where the policy is not met, where a verifier of the token is not configured, or where there is no
            token; for tokens by name also where one must not be believed.

        Raises:
            PolicyJsonError, PolicyFormatError: the policy cannot be used.
            TokenRefusedError: the one token must not be believed.
        """
        rules = _read_policy(policy)
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
        """Why the last ``validate_token`` was False."""
        return list(self._reasons)

    def _validate(self, rules: JsonPolicy, token: str) -> bool:
        from nvattest.compat import _tokens

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
        nonce, at = Nonce.from_hex(self._nonce), self._token_time()
        good = True
        try:
            parts = _tokens.read_token(
                token, nonce=nonce, key=self._signing_key().public, at=datetime.now(timezone.utc)
            )
            for name, inner in parts.items():
                entry = self.get_verifier_by_name(name)
                if entry is None:
                    self._reasons.append(f"{name} is not among the configured verifiers")
                    good = False
                    continue
                trust = self._trust(entry)
                moment = at if trust.jwks is not None else datetime.now(timezone.utc)
                verified = _tokens.verify_part(name, inner, nonce=nonce, at=moment, trust=trust)
                claims, overall = _tokens.policy_claims(verified)
                decision = rules.evaluate(claims, overall)
                self._reasons += [f"{name}: {reason}" for reason in decision.reasons]
                good = good and decision.matched
        except TokenError as error:
            raise _refused(error) from None
        return good

    def _trust(self, entry: list[Any]) -> Trust:
        from nvattest.compat._engine import LOCAL_ISSUERS
        from nvattest.compat._remote import fetch_keys
        from nvattest.compat._settings import nras_base
        from nvattest.compat._tokens import Trust

        name, url = entry[VerifierFields.NAME], entry[VerifierFields.URL]
        count = self._counts.get(name)
        if entry[VerifierFields.ENVIRONMENT] == Environment.REMOTE:
            return Trust(issuer=nras_base(url), devices=count, jwks=fetch_keys(url, settings=self._settings))
        return Trust(
            issuer=LOCAL_ISSUERS[kind_of(entry[VerifierFields.DEVICE])],
            devices=count,
            key=self._signing_key().public,
            # Whoever names simulated roots wants simulated devices; the token says what they are.
            accept_simulated=self._settings.trust_anchors().simulated,
        )

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
        self._appraisals.clear()
        self._reasons.clear()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _first_verifier(self) -> list[Any]:
        if not self._verifiers:
            raise NoVerifierError(
                "there is no verifier, so that nothing can be verified",
                hint="call add_verifier(Devices.GPU, Environment.LOCAL, '', ''); the old SDK gave a tuple or a result",
            )
        return self._verifiers[0]

    def _signing_key(self) -> SigningKey:
        if self._key is None:
            from cryptography.hazmat.primitives.asymmetric import ec

            from nvattest.token.keys import SigningKey

            self._key = SigningKey(ec.generate_private_key(ec.SECP384R1()))
            migrated(
                "tokens are signed with ES384 under a key of this process (public_key_pem). The old SDK signed with "
                "HS256 under the words 'secret' and 'notasecret', so that anybody could write such a token."
            )
        return self._key

    def _token_time(self) -> datetime:
        return self._at.device if self._at is not None else datetime.now(timezone.utc)

    def _say(self, lines: Any) -> None:
        verbose = self._verbose
        if verbose is None:
            verbose = os.environ.get("NVATTEST_COMPAT_VERBOSE", "1") != "0"
        if verbose:
            for line in lines:
                print(line, file=sys.stdout)


def _read_policy(text: object) -> JsonPolicy:
    import json

    from nvattest.errors import ParseError, PolicyError
    from nvattest.policy.json_policy import load_json_policy

    if not isinstance(text, str | bytes):
        raise PolicyFormatError(f"a policy is JSON text, not {type(text).__name__}")
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        return load_json_policy(data, name="policy")
    except ParseError as error:
        try:
            json.loads(data)
        except json.JSONDecodeError as cause:
            raise PolicyJsonError(cause) from None
        except (ValueError, RecursionError):
            pass
        raise PolicyFormatError(error.message, code=error.code, hint=error.hint) from None
    except PolicyError as error:
        raise PolicyFormatError(error.message, code=error.code, hint=error.hint) from None


def _refused(error: TokenError) -> TokenError:
    from nvattest.compat._token_error import TokenRefusedError

    return TokenRefusedError.of(error)
