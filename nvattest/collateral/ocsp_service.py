"""An OCSP responder over HTTP (RFC 6960, appendix A): POST a request, get an answer. The core judges the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nvattest._waiting import Deadline
from nvattest.collateral.bundle import MAXIMUM_ANSWER
from nvattest.collateral.http import HttpClient, Service
from nvattest.errors import CollateralError, ParseError, ResultCode
from nvattest.pki.certificate import Certificate
from nvattest.pki.ocsp import CertIdHash, build_ocsp_request, parse_ocsp_response

OCSP_RESPONDER: Final = Service(
    name="OCSP responder",
    # NVIDIA has one code for "not reached" and "failed".
    unreachable=ResultCode.OCSP_SERVER_ERROR,
    forbidden=ResultCode.OCSP_FORBIDDEN,
    missing=ResultCode.OCSP_SERVER_ERROR,
    failed=ResultCode.OCSP_SERVER_ERROR,
    invalid=ResultCode.OCSP_INVALID_RESPONSE,
)
NONCE_SIZE: Final = 32
_HEADERS: Final = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
_TRY_AGAIN: Final = frozenset({"tryLater", "internalError"})


def ask(
    client: HttpClient,
    url: str,
    certificate: Certificate,
    issuer: Certificate,
    deadline: Deadline,
    *,
    random_bytes: Callable[[int], bytes],
    hash: CertIdHash = CertIdHash.SHA256,  # noqa: A002 - the word of the standard
) -> tuple[bytes, bytes]:
    """Ask about one certificate; returns the DER of the answer and the nonce of the request, which is fresh.

    The answer is a successful one about this certificate's serial number; everything else about it is for the core.

    Raises:
        CollateralError: 201 no such answer, 202 not reached or try later, 203 refused, 205 forbidden, 15 too often.
    """
    nonce = random_bytes(NONCE_SIZE)
    request = build_ocsp_request(certificate, issuer, nonce=nonce, hash=hash)
    body = client.exchange(
        OCSP_RESPONDER, "POST", url, deadline=deadline, maximum=MAXIMUM_ANSWER, headers=_HEADERS, body=request
    )
    try:
        response = parse_ocsp_response(body)
    except ParseError as error:
        raise _error(
            url, certificate, f"{error}; it begins with {body[:40]!r}", ResultCode.OCSP_INVALID_RESPONSE
        ) from None
    if not response.successful:
        result = (
            ResultCode.OCSP_SERVER_ERROR if response.responder_status in _TRY_AGAIN else ResultCode.OCSP_INVALID_REQUEST
        )
        raise _error(url, certificate, f"the responder says {response.responder_status}", result)
    if response.serial != certificate.serial:
        raise _error(
            url,
            certificate,
            f"the answer is about serial {response.serial:x}, asked was {certificate.serial:x}",
            ResultCode.OCSP_INVALID_RESPONSE,
        )
    return body, nonce


def _error(url: str, certificate: Certificate, message: str, result_code: ResultCode) -> CollateralError:
    hints = {
        ResultCode.OCSP_SERVER_ERROR: "try again later, or use a bundle",
        ResultCode.OCSP_INVALID_REQUEST: "try another --ocsp-cert-id-hash; the responder may not know this issuer",
        ResultCode.OCSP_INVALID_RESPONSE: "something else than a responder answered; check --ocsp-url and proxies",
    }
    return OCSP_RESPONDER.error(
        f"{url}: {certificate.label}: {message}", code="answer", result_code=result_code, hint=hints[result_code]
    )
