"""NVIDIA's RIM service: ``GET <base>/v1/rim/<id>`` gives a JSON object with the document in it.

``sha256`` is the digest of the decoded document (seen in an answer of the service that is printed in the IETF RATS
wiki). It only tells a damaged answer from a refused one: the document's own signature is checked by the core.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from nvattest._json import kind_of, load_json
from nvattest.collateral.bundle import MAXIMUM_RIM
from nvattest.collateral.deadline import Deadline
from nvattest.collateral.http import HttpClient, Service
from nvattest.errors import CollateralError, InputError, ParseError, ResultCode
from nvattest.rim.ids import is_rim_id

RIM_SERVICE: Final = Service(
    name="RIM service",
    unreachable=ResultCode.RIM_CONNECTION_ERROR,
    forbidden=ResultCode.RIM_FORBIDDEN,
    missing=ResultCode.RIM_NOT_FOUND,
    failed=ResultCode.RIM_INTERNAL_ERROR,
    invalid=ResultCode.RIM_INTERNAL_ERROR,
)
# Base64 of the largest RIM, and room for the other members.
_MAXIMUM: Final = MAXIMUM_RIM * 4 // 3 + 64 * 1024


def rim_url(base: str, rim_id: str) -> str:
    """The URL of one RIM."""
    return f"{base.rstrip('/')}/v1/rim/{rim_id}"


def fetch_rim(client: HttpClient, base: str, rim_id: str, deadline: Deadline) -> bytes:
    """The XML of one RIM, as the service gives it; nothing in it is believed.

    Raises:
        InputError: not a RIM id.
        CollateralError: 101 forbidden, 102 an unusable answer, 103 not reached, 104 no such RIM, 15 too many requests.
    """
    if not is_rim_id(rim_id):
        raise InputError(f"not a RIM id: {rim_id[:160]!r}", code="rim-id")
    url = rim_url(base, rim_id)
    try:
        body = client.exchange(
            RIM_SERVICE, "GET", url, deadline=deadline, maximum=_MAXIMUM, headers={"Accept": "application/json"}
        )
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


def _document(body: bytes, rim_id: str, url: str) -> bytes:
    try:
        answer = load_json(body, source="RIM service answer", maximum=_MAXIMUM)
    except ParseError as error:
        raise _unusable(url, f"{error}; it begins with {body[:40]!r}") from None
    if not isinstance(answer, dict):
        raise _unusable(url, f"expected a JSON object, found {kind_of(answer)}")
    found = answer.get("id")
    if found != rim_id:
        raise _unusable(url, f"asked for {rim_id}, the answer is {repr(found)[:160]}")
    text, digest = answer.get("rim"), answer.get("sha256")
    if not isinstance(text, str) or not isinstance(digest, str):
        raise _unusable(url, "'rim' and 'sha256' are not both texts")
    try:
        # Some encoders break lines.
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _unusable(url, "'rim' is not base64") from None
    if not 0 < len(content) <= MAXIMUM_RIM:
        raise _unusable(url, f"a document of {len(content)} bytes; 1 to {MAXIMUM_RIM} are read")
    actual = hashlib.sha256(content).hexdigest()
    if digest.lower() != actual:
        raise _unusable(url, f"the document has SHA-256 {actual}, the answer says {digest[:64]!r}")
    return content


def _unusable(url: str, message: str) -> CollateralError:
    return RIM_SERVICE.error(
        f"{url}: {message}",
        code="answer",
        result_code=ResultCode.RIM_INTERNAL_ERROR,
        hint="something else than NVIDIA's service answered, or the answer was damaged; check --rim-url and proxies",
    )
