"""A remote attestation service over a simulated platform: it verifies evidence and signs what it found (NRAS v4).

It is a verifier, not an attester: the verdict is that of this package against the simulated roots.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nvattest.errors import ResultCode
from nvattest.testing.keys import derive_bytes
from nvattest.testing.platform import Platform

if TYPE_CHECKING:
    from nvattest.appraisal.results import DeviceAppraisal

__all__ = ["NrasIssuer"]

_P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
# The service's code and word for what the local verifier says with this result code.
_ERRORS = {
    ResultCode.GPU_EVIDENCE_NONCE_MISMATCH: (4010, "NONCE_NOT_MATCHING"),
    ResultCode.SWITCH_NONCE_MISMATCH: (4010, "NONCE_NOT_MATCHING"),
    ResultCode.CERT_CHAIN_VERIFICATION_FAILURE: (4007, "INVALID_CERTIFICATE_CHAIN"),
    ResultCode.GPU_INVALID_SIGNATURE: (4013, "INVALID_EVIDENCE_SIGNATURE"),
    ResultCode.SWITCH_INVALID_SIGNATURE: (4013, "INVALID_EVIDENCE_SIGNATURE"),
    ResultCode.RIM_INVALID_SIGNATURE: (5013, "INVALID_RIM_SIGNATURE"),
}
_CA, _SIGNER = "NRAS simulation CA", "NRAS simulation signer"


class NrasIssuer:
    """Signs detached EATs. ``kid`` names its key; ``ca_pem`` is the root of the chain in the JWKS."""

    kid = "nvattest-simulation-1"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._ca_key = _key(platform.seed, "nras ca")
        self._keys = {"right": _key(platform.seed, "nras signer"), "wrong": _key(platform.seed, "nras stranger")}
        ca = self._certificate(_CA, self._ca_key)
        signer = self._certificate(_SIGNER, self._keys["right"])
        self._chain = [certificate.public_bytes(serialization.Encoding.DER) for certificate in (signer, ca)]
        self.ca_pem = ca.public_bytes(serialization.Encoding.PEM)

    def jwks(self, *, with_key: bool = True) -> bytes:
        """The key set, as ``/.well-known/jwks.json`` gives it."""
        numbers = self._keys["right"].public_key().public_numbers()
        key = {
            "kty": "EC",
            "crv": "P-384",
            "use": "sig",
            "alg": "ES384",
            "kid": self.kid if with_key else "nvattest-simulation-0",
            "x": _b64url(numbers.x.to_bytes(48, "big")),
            "y": _b64url(numbers.y.to_bytes(48, "big")),
            "x5c": [base64.b64encode(der).decode() for der in self._chain],
        }
        return json.dumps({"keys": [key]}).encode()

    def attest(self, body: bytes, issuer: str, *, now: datetime, signer: str = "right", nonce: str = "") -> bytes:
        """The detached EAT for a request body, issued at ``now``. ``signer`` and ``nonce`` are for lies.

        Raises:
            InputError: the body is no request.
        """
        from nvattest.claims import claims_of
        from nvattest.collateral.bundle import load_bundle
        from nvattest.evidence import load_evidence
        from nvattest.model import Nonce
        from nvattest.session import verify
        from nvattest.token.keys import PublicKey
        from nvattest.token.provenance import MEMBER, provenance

        request: dict[str, Any] = json.loads(body)
        evidence = load_evidence(body)
        appraisal = verify(
            evidence,
            collateral=load_bundle(json.dumps(self._platform.bundle())),
            nonce=Nonce.from_hex(request["nonce"]),
            at=self._platform.time,
            anchors=self._platform.trust_anchors(),
        )
        asked = request.get("claims_version")
        version = asked if asked in ("2.0", "4.0") else "3.0"
        claims = claims_of(appraisal, version=version)
        issued = int(now.timestamp())
        common = {
            "iss": issuer,
            "iat": issued,
            "nbf": issued,
            "exp": issued + 3600,
            "eat_nonce": nonce or request["nonce"],
        }
        submods = {}
        for device, found in zip(appraisal.devices, claims, strict=True):
            payload: dict[str, Any] = {**common, **found, "jti": f"{device.label}-1"}
            details = _error_details(device)
            if details is not None:
                # As the service does: with claims 2.0 there is nothing beside the error, not even the nonce.
                payload = {name: payload[name] for name in ("iss", "iat", "nbf", "exp", "jti")} | (
                    {} if version == "2.0" else found
                )
                payload["x-nvidia-error-details"] = details
            submods[device.label] = self._sign(payload, signer)
        overall: dict[str, Any] = {
            **common,
            "jti": "platform-1",
            "sub": "NVIDIA-PLATFORM-ATTESTATION",
            "x-nvidia-ver": "2.0" if version == "2.0" else "3.0",
            "x-nvidia-overall-att-result": appraisal.trusted,
            "submods": {
                label: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]
                for label, token in submods.items()
            },
            # The one difference to NVIDIA's: the answer says that it is simulated, and which key says so.
            "cnf": {"jwk": PublicKey.of(self._keys[signer].public_key()).jwk()},
            MEMBER: provenance(appraisal, issued=now),
        }
        return json.dumps([["JWT", self._sign(overall, signer)], submods]).encode()

    def _sign(self, payload: dict[str, Any], signer: str) -> str:
        import jwt

        return jwt.encode(payload, self._keys[signer], algorithm="ES384", headers={"kid": self.kid})

    def _certificate(self, subject: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        clock = self._platform.clock
        is_ca = subject == _CA
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(_CA))
            .public_key(key.public_key())
            .serial_number(1 if is_ca else 2)
            .not_valid_before(clock - timedelta(days=30))
            .not_valid_after(clock + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_ca,
                    key_cert_sign=is_ca,
                    crl_sign=is_ca,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self._ca_key, hashes.SHA384())
        )


def _error_details(device: DeviceAppraisal) -> dict[str, object] | None:
    """What the service says of a device whose evidence it will not judge; None where claims say what is wrong."""
    if device.trusted:
        return None
    code, message = _ERRORS.get(device.result_code, (0, ""))
    if not code:
        return None
    return {
        "code": code,
        "fieldName": "evidence",
        "httpStatus": "400 BAD_REQUEST",
        "message": message,
        "description": f"simulated: {message.lower().replace('_', ' ')}",
    }


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "nvattest simulation"),
        ]
    )


def _key(seed: int, label: str) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(derive_bytes(seed, label, 48), "big") % (_P384_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP384R1())


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
