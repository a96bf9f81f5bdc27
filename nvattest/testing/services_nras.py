"""A remote attestation service over a simulated platform: it verifies evidence and signs what it found (NRAS v4).

It is a verifier, not an attester: the verdict is that of this package against the simulated roots.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509

from nvattest._documents import kind_of, load_json
from nvattest._text import base64url
from nvattest._waiting import Deadline
from nvattest.collateral.http import Answer, HttpClient, Service
from nvattest.errors import InputError, ParseError, ResultCode
from nvattest.model import DeviceKind
from nvattest.testing.certificates import (
    SIMULATION,
    Authorities,
    KeyRing,
    basic_constraints,
    key_usage,
    name,
    pem,
)
from nvattest.testing.platform import Platform

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.results import DeviceAppraisal
    from nvattest.appraisal.verifier import Verifier
    from nvattest.evidence import Evidence
    from nvattest.model import VerificationTime

__all__ = ["NrasIssuer"]

# The service's code and word for what the local verifier says with this result code.
_ERRORS = {
    ResultCode.GPU_EVIDENCE_NONCE_MISMATCH: (4010, "NONCE_NOT_MATCHING"),
    ResultCode.SWITCH_NONCE_MISMATCH: (4010, "NONCE_NOT_MATCHING"),
    ResultCode.CERT_CHAIN_VERIFICATION_FAILURE: (4007, "INVALID_CERTIFICATE_CHAIN"),
    ResultCode.GPU_INVALID_SIGNATURE: (4013, "INVALID_EVIDENCE_SIGNATURE"),
    ResultCode.SWITCH_INVALID_SIGNATURE: (4013, "INVALID_EVIDENCE_SIGNATURE"),
    ResultCode.RIM_INVALID_SIGNATURE: (5013, "INVALID_RIM_SIGNATURE"),
}
_VERSIONS = {DeviceKind.GPU: ("2.0", "3.0", "4.0"), DeviceKind.NVSWITCH: ("2.0", "3.0")}
_MAXIMUM_REQUEST = 16 * 1024 * 1024


class NrasIssuer:
    """Signs detached EATs. ``kid`` names its key; ``ca_pem`` is the root of the chain in the JWKS."""

    # Of the form of NVIDIA's: where it is, when it was made, which it is.
    kid = "nv-eat-kid-simulation-20260101000000000-00000000-0000-4000-8000-000000000001"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        keys = KeyRing(platform.seed)
        self._keys = {"right": keys.key("nras signer"), "wrong": keys.key("nras uncertified")}
        validity = (platform.clock - timedelta(days=30), platform.clock + timedelta(days=365))
        authorities = Authorities(keys, platform.clock)
        authority = authorities.template(
            "nras ca", _name("CA"), validity, basic_constraints(ca=True), key_usage("keyCertSign,cRLSign")
        )
        leaf = authorities.template(
            "nras signer", _name("signer"), validity, basic_constraints(ca=False), key_usage("digitalSignature")
        )
        signer, root = authorities.chain([leaf, authority])
        self._chain = [signer.der, root.der]
        self.ca_pem = pem([root.der])

    def jwks(self, *, with_key: bool = True) -> bytes:
        """The key set, as ``/.well-known/jwks.json`` gives it."""
        point = self._keys["right"].point
        key = {
            "kty": "EC",
            "crv": "P-384",
            "kid": self.kid if with_key else f"{self.kid[:-1]}0",
            "x": base64url(point[1:49]),
            "y": base64url(point[49:]),
            "x5c": [base64.b64encode(der).decode() for der in self._chain],
        }
        return json.dumps({"keys": [key]}).encode()

    def attest(
        self,
        body: bytes,
        issuer: str,
        *,
        kind: DeviceKind | None = None,
        now: datetime,
        signer: str = "right",
        nonce: str = "",
    ) -> bytes:
        """The detached EAT for a request body, issued at ``now``. ``signer`` and ``nonce`` are for lies.

        ``kind`` is that of the path. Revocation is asked of the platform's responder, with nonces, as the service does.

        Raises:
            InputError: the body is no request, is about devices of the other kind, or names an unknown claims version.
        """
        from nvattest.appraisal.verifier import Verifier
        from nvattest.evidence import load_evidence
        from nvattest.model import Nonce, VerificationTime
        from nvattest.token.claims import MEMBER, claims_of, provenance
        from nvattest.token.jose import PublicKey

        request = load_json(body, source="request", maximum=_MAXIMUM_REQUEST)
        if not isinstance(request, dict):
            raise InputError(f"expected an object, found {kind_of(request)}", code="request")
        evidence = [self._under_own_root(item) for item in load_evidence(body)]
        if kind is not None and any(item.kind is not kind for item in evidence):
            raise InputError(f"evidence of another kind than {kind.value}", code="device-kind")
        # Without the member the answer has the old claims.
        version = request.get("claims_version", "2.0")
        if version not in _VERSIONS[evidence[0].kind]:
            raise InputError(f"no claims version for these devices: {str(version)[:40]!r}", code="claims-version")
        at = VerificationTime.at(now)
        verifier = Verifier(anchors=self._platform.trust_anchors())
        appraisal = verifier.appraise(
            evidence,
            nonce=Nonce.from_hex(str(request.get("nonce"))),
            collateral=self._collateral(evidence, verifier, at),
            at=at,
        )
        issued = int(now.timestamp())
        common = {"iss": issuer, "iat": issued, "nbf": issued, "exp": issued + 3600}
        asked = {"eat_nonce": nonce or str(request["nonce"])}
        submods = {}
        for device, found in zip(appraisal.devices, claims_of(appraisal, version=version), strict=True):
            details = _error_details(device)
            payload: dict[str, Any] = {**common, "jti": str(uuid.uuid4())}
            if details is None:
                payload |= {**asked, **_as_the_service_types(found, device.kind, version)}
            else:
                # With claims 2.0 there is nothing beside the error, not even the nonce.
                payload |= {} if version == "2.0" else _as_the_service_types(found, device.kind, version)
                payload["x-nvidia-error-details"] = details
            submods[device.label] = self._sign(payload, signer)
        overall: dict[str, Any] = {
            **common,
            **asked,
            "jti": str(uuid.uuid4()),
            "sub": "NVIDIA-PLATFORM-ATTESTATION",
            "x-nvidia-ver": version,
            "x-nvidia-overall-att-result": appraisal.trusted,
            "submods": {
                label: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]
                for label, token in submods.items()
            },
            # The one difference to NVIDIA's: the answer says that it is simulated, and which key says so.
            "cnf": {"jwk": PublicKey.of(self._keys[signer].public).jwk()},
            MEMBER: provenance(appraisal, issued=now),
        }
        return json.dumps([["JWT", self._sign(overall, signer)], submods]).encode()

    def _under_own_root(self, item: Evidence) -> Evidence:
        """The evidence with the service's root at the end of the chain, whatever root it came with.

        NVIDIA's verifiers put their own there, its Python SDK before it sends the chain.
        """
        from nvattest.pki.certificate import parse_pem_chain

        root, _ = self._platform.roots_der()
        try:
            chain = [certificate.der for certificate in parse_pem_chain(item.certificate_chain)]
        except ParseError:
            return item
        return item if chain[-1] == root else replace(item, certificate_chain=pem([*chain[:-1], root]))

    def _collateral(self, evidence: Sequence[Evidence], verifier: Verifier, at: VerificationTime) -> Collateral:
        """The RIMs that the platform's service has, and live answers of its responder."""
        from nvattest.appraisal.inputs import Collateral, RevocationMode, RimAnswer, Source
        from nvattest.collateral.gather import GatherOptions, gather_needs, needs_of

        needs = needs_of(evidence, verifier, at)
        known = Collateral(
            rims={
                rim_id: RimAnswer(id=rim_id, content=xml, source=Source.LIVE, origin="simulated")
                for rim_id in needs.rim_ids
                if (xml := self._platform.rim(rim_id)) is not None
            }
        )
        options, services = GatherOptions(revocation=RevocationMode.FRESH), _Services(self._platform, at.rim)
        return gather_needs(needs, options, at=at, verifier=verifier, known=known, client=services)

    def _sign(self, payload: dict[str, Any], signer: str) -> str:
        import jwt

        # NVIDIA's headers have a kid and an alg, and no typ.
        return jwt.encode(
            payload, self._keys[signer].private, algorithm="ES384", headers={"kid": self.kid, "typ": None}
        )


def _name(word: str) -> x509.Name:
    return name(("CN", f"NRAS simulation {word}"), ("O", SIMULATION))


class _Services(HttpClient):
    """The platform's OCSP responder, and a RIM service without a RIM, without a network."""

    def __init__(self, platform: Platform, now: datetime) -> None:
        super().__init__()
        self._platform = platform
        self._now = now

    def exchange(self, service: Service, url: str, deadline: Deadline, body: bytes | None = None) -> Answer:  # noqa: ARG002
        if body is None:
            raise service.error(f"{url}: HTTP status 404", code="not-found")
        return Answer(self._platform.ocsp(body, self._now), {})


def _as_the_service_types(claims: dict[str, object], kind: DeviceKind, version: str) -> dict[str, object]:
    """The claims as the service writes them: it always has a warning and an OEM id, which switches have as null."""
    typed = {"x-nvidia-attestation-warning": None, **claims}
    if kind is DeviceKind.GPU:
        typed["oemid"] = claims.get("oemid") or ""
    elif version != "2.0":
        typed["oemid"] = None
    return typed


def _error_details(device: DeviceAppraisal) -> dict[str, object] | None:
    """What the service says of a device whose evidence it will not judge; None where claims say what is wrong."""
    code, message = _ERRORS.get(device.result_code, (0, ""))
    if device.trusted or not code:
        return None
    return {
        "code": code,
        "fieldName": "evidence",
        "httpStatus": "400 BAD_REQUEST",
        "message": message,
        "description": f"simulated: {message.lower().replace('_', ' ')}",
    }
