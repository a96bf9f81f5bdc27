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
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum, IntFlag
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar

from nvattest._text import joined
from nvattest.compat import (
    CompatValueError,
    InvalidNonceError,
    MigrationWarning,
    MissingParameterError,
    NoEvidenceError,
    NoVerifierError,
    PolicyFormatError,
    PolicyJsonError,
    UnsupportedVerifierError,
    _engine,
    migrated,
)
from nvattest.errors import CollateralError, TokenError
from nvattest.model import DeviceKind, Nonce, VerificationTime

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.compat._tokens import TokenRefusedError
    from nvattest.evidence import Evidence
    from nvattest.pki.anchors import TrustAnchors
    from nvattest.policy.relying_party import JsonPolicy
    from nvattest.token.jose import SigningKey

__all__ = [
    "Attestation", "CompatValueError", "Devices", "Environment", "InvalidNonceError", "MigrationWarning",
    "MissingParameterError", "NoEvidenceError", "NoVerifierError", "PolicyFormatError", "PolicyJsonError",
    "TokenRefusedError", "UnsupportedVerifierError", "VerifierFields",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")


def __getattr__(name: str) -> Any:
    # It is a PyJWT error too, and PyJWT is loaded only when it is used.
    if name == "TokenRefusedError":
        from nvattest.compat import _tokens

        return _tokens.TokenRefusedError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Devices(IntFlag):
    """Kinds of devices; GPU and SWITCH can be verified."""

    CPU, GPU, SWITCH, OS, DPU = 1, 2, 4, 8, 16


class Environment(IntEnum):
    """Where a verifier runs; LOCAL and REMOTE can be used."""

    TEST, LOCAL, AZURE, GCP, REMOTE = range(1, 6)


class VerifierFields(IntEnum):
    """Places in an entry of ``get_verifiers()``. The last two are there only where a URL was given."""

    NAME, DEVICE, ENVIRONMENT, URL, POLICY, JWT_TOKEN, OCSP_URL, RIM_URL = range(8)


class class_or_instance(Generic[P, R]):  # noqa: N801 - used like classmethod
    """``client.x()`` works on ``client``; ``Attestation.x()`` on ``Attestation.default()``."""

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object | None, owner: Any) -> Callable[P, R]:
        return MethodType(self._function, owner.default() if instance is None else instance)


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
        self._nonce: Nonce | None = None
        self._nonce_server = ""
        self._verifiers: list[list[Any]] = []
        self._settings = _engine.Settings(anchors=anchors, collateral=collateral, at=at)
        self._verbose = verbose
        self._tokens: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._reasons: list[str] = []
        self._key = token_key
        if Attestation._default is None:
            Attestation._default = self

    @classmethod
    def default(cls) -> Attestation:
        """The instance behind calls on the class itself."""
        return cls() if Attestation._default is None else Attestation._default

    # --- Settings

    @class_or_instance
    def set_name(self, name: str) -> None:
        """Set the name under which the token is kept."""
        self._name = str(name)

    @class_or_instance
    def get_name(self) -> str:
        return self._name

    @class_or_instance
    def set_nonce(self, nonce: str) -> None:
        """Set the nonce for the evidence: 64 hexadecimal digits.

        Raises:
            InvalidNonceError: something else; the old SDK noticed only later.
        """
        self._nonce = _engine.read_nonce(nonce)

    @class_or_instance
    def get_nonce(self) -> str:
        """The nonce, or an empty text."""
        return self._nonce.hex() if self._nonce is not None else ""

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
        """Keep a URL; nothing uses it, as in the old SDK."""
        self._nonce_server = url

    @class_or_instance
    def get_nonce_server(self) -> str:
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
            migrated(_engine.NO_NONCE)
        self._settings.ocsp_nonce_disabled = ocsp_nonce_disabled

    @class_or_instance
    def get_ocsp_nonce_disabled(self) -> bool:
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
        self._settings.claims_version = _engine.check_claims_version(claims_version)

    @class_or_instance
    def get_claims_version(self) -> str:
        return self._settings.claims_version

    @class_or_instance
    def set_verbose(self, verbose: bool) -> None:
        """Print the progress lines of the old SDK on stdout, or not."""
        self._verbose = bool(verbose)

    @class_or_instance
    def add_verifier(
        self, dev: Devices, env: Environment, url: str = "", evidence: str = "", ocsp_url: str = "", rim_url: str = ""
    ) -> None:
        """Add a verifier. ``evidence`` is kept and never read, as in the old SDK.

        Raises:
            UnsupportedVerifierError: the pair of device and environment cannot be verified.
        """
        if dev not in (Devices.GPU, Devices.SWITCH) or env not in (Environment.LOCAL, Environment.REMOTE):
            raise UnsupportedVerifierError(
                f"nothing can verify {dev!r} in {env!r}",
                hint="Devices.GPU or Devices.SWITCH with Environment.LOCAL or Environment.REMOTE; the old SDK took "
                "other pairs and verified nothing (TEST was always true)",
            )
        name = f"{Environment(env).name}_{Devices(dev).name}_CLAIMS"
        if env == Environment.REMOTE and not url:
            url = _engine.nras_default(switch=dev == Devices.SWITCH)
        entry: list[Any] = [name, dev, env, url, evidence, ""]
        self._verifiers.append([*entry, ocsp_url, rim_url] if ocsp_url or rim_url else entry)

    @class_or_instance
    def get_verifiers(self) -> list[list[Any]]:
        """The list of verifiers itself: ``[name, device, environment, url, evidence, ""]``, with URLs if given."""
        return self._verifiers

    @class_or_instance
    def clear_verifiers(self) -> None:
        self._verifiers.clear()

    @class_or_instance
    def get_verifier_by_name(self, verifier_name: str) -> list[Any] | None:
        """The first verifier of this name, as ``get_verifiers`` has it, or None."""
        return next((entry for entry in self._verifiers if entry[VerifierFields.NAME] == verifier_name), None)

    # --- Evidence and verification

    @class_or_instance
    def get_evidence(self, options: Mapping[str, Any] | None = None) -> list[Any]:
        """Collect evidence for the first verifier: handles for LOCAL, dictionaries for REMOTE.

        A nonce is made where none was set, and kept until ``set_nonce`` or ``reset``.

        Raises:
            NoVerifierError: there is none; the old SDK gave a tuple.
            CompatValueError: options that are no dict.
            CollectionError: the driver gave no evidence; the old SDK gave an empty list.
        """
        verifier = self._configured()[0]
        if self._nonce is None:
            self._nonce = _engine.new_nonce()
        if options is not None and not isinstance(options, Mapping):
            raise CompatValueError(f"options are a dict, not {type(options).__name__}")
        asked = {"ppcie_mode": True, "no_gpu_mode": False, **(options or {})}
        evidence = _engine.collect(
            verifier.kind,
            self._nonce,
            ppcie_mode=bool(asked["ppcie_mode"]),
            no_gpu_mode=bool(asked["no_gpu_mode"]),
        )
        self._say(_engine.fetched(evidence))
        return _engine.dictionaries(evidence) if verifier.url is not None else _engine.handles(evidence)

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
        from nvattest.compat._tokens import make_token

        verifiers = self._configured()
        if evidence_list is None:
            evidence_list = self.get_evidence()
        nonce = self._nonce_set("no nonce was set: nothing shows that this evidence is fresh", "call set_nonce()")
        # A round that breaks off leaves no token of an earlier one.
        self._tokens.pop(self._name, None)
        self._reasons = []
        results: dict[str, _engine.Result] = {}
        for verifier in verifiers:
            name = verifier.name
            evidence = _engine.evidence_of(evidence_list, verifier.kind, nonce)
            try:
                result = self._verify(verifier, evidence, nonce)
            except (CollateralError, TokenError) as error:
                self._reasons.append(f"{name}: {error}")
                self._say([f"{name}: {error}"])
                continue
            self._say(result.lines)
            # The token holds one part for each name: of two verifiers, that of the one that says no.
            if name not in results or results[name].trusted:
                results[name] = result
                self._counts[name] = len(evidence)
        if self._reasons:
            # A token without the part of a verifier would pass for a round in which it was never asked.
            return False
        parts = {name: result.token for name, result in results.items()}
        self._tokens[self._name] = make_token(parts, nonce=nonce, key=self._signing_key())
        return bool(results) and all(result.trusted for result in results.values())

    def _verify(self, verifier: _engine.Verifier, evidence: tuple[Evidence, ...], nonce: Nonce) -> _engine.Result:
        settings = self._settings
        if verifier.url is not None:
            return _engine.verify_at_nras(evidence, nonce=nonce, url=verifier.url, settings=settings)
        settings.ocsp_url, settings.rim_url = verifier.ocsp_url, verifier.rim_url
        return _engine.verify_locally(evidence, nonce=nonce, settings=settings, key=self._signing_key())[0]

    # --- Tokens

    @class_or_instance
    def get_token(self, x: str | None = None) -> str:
        """The token of this client, or of the name ``x``; an empty text if there is none."""
        return self._tokens.get(self._name if x is None else x, "")

    @class_or_instance
    def set_token(self, name: str, eat_token: str) -> None:
        self._tokens[name] = eat_token

    @class_or_instance
    def decode_token(self, token: str) -> Any:
        """What a token says, unverified: for looking at, never for deciding.

        Raises:
            TokenRefusedError: it is no token.
        """
        from nvattest.compat._tokens import decoded

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
        from nvattest.compat._tokens import read_policy

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

    def _validate(self, rules: JsonPolicy, token: str) -> bool:
        from nvattest.compat._tokens import validate

        if not token:
            self._reasons.append("there is no token: attest() was not called, or it broke off")
            return False
        # Of two verifiers of one name the first counts.
        verifiers = {verifier.name: verifier for verifier in reversed(self._configured())}
        nonce = self._nonce_set(
            "no nonce is set: nothing shows that this token answers a request of yours",
            "call set_nonce() with the nonce that the token was asked for",
        )
        good, reasons = validate(
            token,
            rules,
            nonce=nonce,
            key=self._signing_key().public,
            verifiers=verifiers,
            counts=self._counts,
            settings=self._settings,
        )
        self._reasons += reasons
        return good

    @class_or_instance
    def get_reasons(self) -> list[str]:
        """Why the last ``validate_token`` was False, or why the last ``attest`` has no token."""
        return list(self._reasons)

    @class_or_instance
    def public_key_pem(self) -> bytes:
        """The public half of the key that signs this client's tokens, as PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._signing_key().public.native().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @class_or_instance
    def reset(self) -> None:
        """Forget nonce, nonce server, verifiers and tokens; name, service key and versions stay."""
        self._nonce = None
        self._nonce_server = ""
        for kept in (self._verifiers, self._tokens, self._counts, self._reasons):
            kept.clear()

    # --- Inside

    def _configured(self) -> list[_engine.Verifier]:
        if not self._verifiers:
            raise NoVerifierError(
                "there is no verifier, so that nothing can be verified",
                hint="call add_verifier(Devices.GPU, Environment.LOCAL, '', ''); the old SDK gave a tuple or a result",
            )
        return [
            _engine.Verifier(
                name=entry[VerifierFields.NAME],
                kind=DeviceKind.GPU if entry[VerifierFields.DEVICE] == Devices.GPU else DeviceKind.NVSWITCH,
                url=entry[VerifierFields.URL] if entry[VerifierFields.ENVIRONMENT] == Environment.REMOTE else None,
                ocsp_url=next(iter(entry[VerifierFields.OCSP_URL :]), None),
                rim_url=next(iter(entry[VerifierFields.RIM_URL :]), None),
            )
            for entry in self._verifiers
        ]

    def _nonce_set(self, missing: str, hint: str) -> Nonce:
        if self._nonce is None:
            raise InvalidNonceError(missing, code="nonce", hint=hint)
        return self._nonce

    def _signing_key(self) -> SigningKey:
        if self._key is None:
            self._key = _engine.new_key(
                "tokens are signed with ES384 under a key of this process (public_key_pem). The old SDK signed with "
                "HS256 under the words 'secret' and 'notasecret', so that anyone could write such a token."
            )
        return self._key

    def _say(self, lines: Iterable[str]) -> None:
        verbose = self._verbose
        if verbose is None:
            verbose = os.environ.get("NVATTEST_COMPAT_VERBOSE", "1") != "0"
        if verbose:
            for line in lines:
                print(joined([line]), file=sys.stdout)
