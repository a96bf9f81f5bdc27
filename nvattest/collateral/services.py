"""NVIDIA's RIM service and an OCSP responder over HTTP: what is asked of them, and which answers can be used.

``GET <base>/v1/rim/<id>`` gives a JSON object with the RIM in it. ``sha256`` is the digest of the document (seen in an
answer that the IETF RATS wiki prints); it only distinguishes a damaged answer from a refused one. A responder gets a
POST of a request (RFC 6960, appendix A). The core checks the signatures of both.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Final

from nvattest._documents import kind_of, load_json
from nvattest._waiting import Deadline
from nvattest.collateral.bundle import MAXIMUM_ANSWER, MAXIMUM_RIM, decoded
from nvattest.collateral.http import HttpClient, Service
from nvattest.errors import CollateralError, InputError, ParseError, ResultCode
from nvattest.pki.certificate import Certificate
from nvattest.pki.ocsp import CertIdHash, OcspResponse, build_ocsp_request, parse_ocsp_response
from nvattest.rim.ids import is_rim_id

RIM_SERVICE: Final = Service(
    name="RIM service",
    option="--rim-url",
    unreachable=ResultCode.RIM_CONNECTION_ERROR,
    forbidden=ResultCode.RIM_FORBIDDEN,
    missing=ResultCode.RIM_NOT_FOUND,
    failed=ResultCode.RIM_INTERNAL_ERROR,
    invalid=ResultCode.RIM_INTERNAL_ERROR,
)
# Base64 of the largest RIM, and space for the other members.
MAXIMUM_RIM_ANSWER: Final = MAXIMUM_RIM * 4 // 3 + 64 * 1024
OCSP_RESPONDER: Final = Service(
    name="OCSP responder",
    option="--ocsp-url",
    # NVIDIA has one code for "not reached" and "failed".
    unreachable=ResultCode.OCSP_SERVER_ERROR,
    forbidden=ResultCode.OCSP_FORBIDDEN,
    missing=ResultCode.OCSP_SERVER_ERROR,
    failed=ResultCode.OCSP_SERVER_ERROR,
    invalid=ResultCode.OCSP_INVALID_RESPONSE,
    # The DER tag of a SEQUENCE.
    begins=b"\x30",
)
NONCE_SIZE: Final = 32
_HEADERS: Final = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
_TRY_AGAIN: Final = frozenset({"tryLater", "internalError"})


def rim_url(base: str, rim_id: str) -> str:
    """The URL of one RIM. ``base`` may end in ``/v1/rim/``, as the base that NVIDIA's Python packages read does."""
    return f"{base.rstrip('/').removesuffix('/v1/rim').rstrip('/')}/v1/rim/{rim_id}"


def fetch_rim(client: HttpClient, base: str, rim_id: str, deadline: Deadline) -> bytes:
    """The XML of one RIM, as the service gives it, not verified.

    Raises:
        InputError: not a RIM id.
        CollateralError: 101 forbidden, 102 an unusable answer, 103 not reached, 104 no such RIM, 15 too many requests.
    """
    if not is_rim_id(rim_id):
        raise InputError(f"not a RIM id: {rim_id[:160]!r}", code="rim-id")
    url = rim_url(base, rim_id)
    try:
        body = client.exchange(
            RIM_SERVICE,
            "GET",
            url,
            deadline=deadline,
            maximum=MAXIMUM_RIM_ANSWER,
            headers={"Accept": "application/json"},
        ).content
    except CollateralError as error:
        if error.code != "not-found":
            raise
        raise RIM_SERVICE.error(
            f"there is no {rim_id}: {url}: HTTP status 404",
            code="not-found",
            result_code=ResultCode.RIM_NOT_FOUND,
            hint="NVIDIA has not published a RIM for this version: run nvattest preflight before you change driver or "
            "VBIOS, and use versions that are published",
        ) from None
    return _document(body, rim_id, url)


def read_rim_answer(data: bytes, source: str, *, file: bool = False) -> tuple[str, bytes]:
    """The id and the document of an answer of the service; ``file``: it was saved to a file.

    Raises:
        ParseError: not such an answer, or a document that does not have the digest beside it.
    """
    answer = load_json(
        data, source=source, maximum=MAXIMUM_RIM_ANSWER, result_code=ResultCode.RIM_INTERNAL_ERROR, file=file
    )
    if not isinstance(answer, dict):
        raise _malformed(source, f"expected a JSON object, found {kind_of(answer)}")
    rim_id, text, digest = (answer.get(key) for key in ("id", "rim", "sha256"))
    if not isinstance(rim_id, str) or not isinstance(text, str) or not isinstance(digest, str):
        raise _malformed(source, "'id', 'rim' and 'sha256' are not all texts")
    if str(answer.get("rim_format")).upper() == "CORIM":
        raise _malformed(source, f"{rim_id[:160]!r} is a CoRIM; this program reads RIMs that are SWID tags")
    try:
        # Some encoders break lines.
        return rim_id, decoded("".join(text.split()), digest, MAXIMUM_RIM)
    except binascii.Error:
        raise _malformed(source, "'rim' is not base64") from None
    except ValueError as error:
        raise _malformed(source, f"'rim': {error}") from None


def _malformed(source: str, message: str) -> ParseError:
    return ParseError(message, source=source, code="answer", result_code=ResultCode.RIM_INTERNAL_ERROR)


def _document(body: bytes, rim_id: str, url: str) -> bytes:
    try:
        found, content = read_rim_answer(body, "RIM service answer")
    except ParseError as error:
        raise RIM_SERVICE.unusable(url, f"{error}; it begins with {body[:40]!r}") from None
    if found != rim_id:
        raise RIM_SERVICE.unusable(url, f"asked for {rim_id}, the answer is {repr(found)[:160]}")
    return content


def ask_responder(
    client: HttpClient,
    url: str,
    certificate: Certificate,
    issuer: Certificate,
    deadline: Deadline,
    *,
    random_bytes: Callable[[int], bytes],
    hash: CertIdHash = CertIdHash.SHA256,  # noqa: A002 - the word of the standard
) -> tuple[bytes, bytes]:
    """Ask about one certificate; returns the answer as it came (``check_answer``) and the fresh nonce of the request.

    Raises:
        CollateralError: 202 not reached or failed, 205 forbidden, 15 too often.
    """
    nonce = random_bytes(NONCE_SIZE)
    request = build_ocsp_request(certificate, issuer, nonce=nonce, hash=hash)
    answer = client.exchange(
        OCSP_RESPONDER, "POST", url, deadline=deadline, maximum=MAXIMUM_ANSWER, headers=_HEADERS, body=request
    )
    return answer.content, nonce


def check_answer(
    content: bytes,
    url: str,
    certificate: Certificate,
    *,
    parse: Callable[[bytes], OcspResponse] = parse_ocsp_response,
) -> None:
    """Check that an answer is a successful one about this certificate's serial number; the core judges the rest.

    Raises:
        CollateralError: 201 no such answer, 202 the responder asks to try later, 203 it refuses.
    """
    of = certificate.label
    try:
        response = parse(content)
    except ParseError as error:
        raise OCSP_RESPONDER.unusable(url, f"{of}: {error}; it begins with {content[:40]!r}") from None
    if not response.successful:
        later = response.responder_status in _TRY_AGAIN
        raise OCSP_RESPONDER.error(
            f"{url}: {of}: the responder says {response.responder_status}",
            code="answer",
            result_code=ResultCode.OCSP_SERVER_ERROR if later else ResultCode.OCSP_INVALID_REQUEST,
            hint="try again later, or use a bundle"
            if later
            else "try another --ocsp-cert-id-hash; the responder may not know this issuer",
        )
    if response.serial != certificate.serial:
        message = f"{of}: the answer is about serial {response.serial:x}, asked was {certificate.serial:x}"
        raise OCSP_RESPONDER.unusable(url, message)
