"""What a client of the old SDK is told before it verifies: name, nonce, keys, versions, and its list of verifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvattest.compat._errors import CompatValueError, NoVerifierError
from nvattest.compat._settings import Settings, nras_default
from nvattest.compat._warnings import NO_NONCE, migrated
from nvattest.compat.nv_attestation_sdk._class_level import class_or_instance
from nvattest.compat.nv_attestation_sdk._words import Devices, Environment, VerifierFields, verifier_name

if TYPE_CHECKING:
    from nvattest.pki.anchors import TrustAnchors


class Configured:
    """The setters and getters of ``Attestation``, and the state behind them."""

    def __init__(self, name: str | None, *, anchors: TrustAnchors | None, verbose: bool | None) -> None:
        self._name = "" if name is None else str(name)
        self._nonce = ""
        self._nonce_server = ""
        self._claims_version = "2.0"
        self._verifiers: list[list[Any]] = []
        self._settings = Settings(anchors=anchors)
        self._verbose = verbose

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

    def _first_verifier(self) -> list[Any]:
        if not self._verifiers:
            raise NoVerifierError(
                "there is no verifier, so that nothing can be verified",
                hint="call add_verifier(Devices.GPU, Environment.LOCAL, '', ''); the old SDK gave a tuple or a result",
            )
        return self._verifiers[0]
