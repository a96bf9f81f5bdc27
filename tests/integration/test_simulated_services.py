"""The simulated services beside NVIDIA's: the shape of every answer compared with captured ones, and what they refuse."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.x509 import ocsp
from lxml import etree

from nvattest.collateral.nras import request_body
from nvattest.evidence import Evidence
from nvattest.model import DeviceKind, Nonce
from nvattest.testing import Platform
from nvattest.testing.services import Services

NONCE = Nonce(bytes(range(32)))
GPU, SWITCH = DeviceKind.GPU, DeviceKind.NVSWITCH
PATHS = {GPU: "/v4/attest/gpu", SWITCH: "/v4/attest/switch"}
# What the simulated service has beside NVIDIA's: the mark of the simulation.
MARK = {"cnf", "nvattest"}
# Claims that NVIDIA's newer programs read of the service (NVAT 1.2.2, 2.0.0); the captured tokens are of 2025-06.
NEWER = {
    "x-nvidia-device-type", "x-nvidia-mismatch-measurement-records", "x-nvidia-gpu-claims-version", "x-nvidia-version",
    "x-nvidia-gpu-switch-pdis", "x-nvidia-switch-pdi", "x-nvidia-switch-gpu-pdis", "x-nvidia-cert-ocsp-nonce-matches",
    "x-nvidia-cert-ocsp-response-valid",
}  # fmt: skip


def shape(value: object, without: frozenset[str] | set[str] = frozenset()) -> object:
    """Keys and types; of an array the kinds of its members."""
    if isinstance(value, dict):
        return {name: shape(item, without) for name, item in value.items() if name not in without}
    if isinstance(value, list):
        return [shape(item, without) for item in value]
    return type(value).__name__


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload of a compact JWT."""
    header, payload = (
        json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) for text in token.split(".")[:2]
    )
    return header, payload


def evidence_of(platform: Platform, kind: DeviceKind = GPU, nonce: Nonce = NONCE) -> list[Evidence]:
    return list(platform.evidence(nonce, kind))


def post(services: Services, body: bytes | str, path: str = PATHS[GPU], **headers: str) -> requests.Response:
    return requests.post(
        services.nras_url + path, data=body, headers={"Content-Type": "application/json", **headers}, timeout=30
    )


def attest(services: Services, kind: DeviceKind, version: str | None, *, nonce: Nonce = NONCE) -> Any:
    body = json.loads(request_body(evidence_of(services.platform, kind, nonce), nonce, version or "2.0"))
    if version is None:
        del body["claims_version"]
    answer = post(services, json.dumps(body), PATHS[kind])
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


@pytest.fixture(scope="module")
def node() -> Iterator[Services]:
    with Services(Platform.build("hopper-8-ppcie")) as services:
        yield services


@pytest.mark.parametrize(
    ("capture", "kind", "version"),
    [
        ("tokens/nras-2026-06.json", GPU, "2.0"),
        ("tokens/nras-2026-06.json", GPU, None),
        ("tee/pairs/p3-near-8gpu.nras.json", GPU, "2.0"),
        ("tokens/attsdk-hopper-claims-v3-detached-eat.json", GPU, "3.0"),
        ("tokens/attsdk-switch-detached-eat.json", SWITCH, "3.0"),
    ],
)
def test_an_answer_of_the_remote_service_has_the_shape_of_nvidias(
    real_data: Path, node: Services, capture: str, kind: DeviceKind, version: str | None
) -> None:
    real, simulated = json.loads((real_data / capture).read_bytes()), attest(node, kind, version)
    assert [type(item).__name__ for item in simulated] == [type(item).__name__ for item in real]
    assert simulated[0][0] == real[0][0]
    (real_header, real_overall), (header, overall) = parts(real[0][1]), parts(simulated[0][1])
    assert shape(header) == shape(real_header)
    assert header["alg"] == real_header["alg"]
    one = {"submods": {"one": next(iter(overall["submods"].values()))}}
    real_one = {"submods": {"one": next(iter(real_overall["submods"].values()))}}
    assert shape({**overall, **one}, MARK) == shape({**real_overall, **real_one})
    assert overall["x-nvidia-ver"] == real_overall["x-nvidia-ver"]
    assert overall["exp"] - overall["iat"] == real_overall["exp"] - real_overall["iat"]
    real_device = parts(next(iter(real[1].values())))
    for token in simulated[1].values():
        assert shape(parts(token)[0]) == shape(real_device[0])
        assert shape(parts(token)[1], NEWER) == shape(real_device[1])


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_a_refused_device_has_the_error_of_nvidias_service(real_data: Path, node: Services, version: str) -> None:
    real = json.loads((real_data / "tee" / "pairs" / "p4-chutes-8gpu.nras.json").read_bytes())
    body = json.loads(request_body(evidence_of(node.platform), NONCE, version))
    simulated = post(node, json.dumps({**body, "nonce": "ab" * 32})).json()
    refused, real_refused = (parts(next(iter(token[1].values())))[1] for token in (simulated, real))
    said, real_said = (token["x-nvidia-error-details"] for token in (refused, real_refused))
    assert shape(said) == shape(real_said)
    assert (said["code"], said["message"]) == (real_said["code"], real_said["message"])
    assert parts(simulated[0][1])[1]["x-nvidia-overall-att-result"] is False
    if version == "2.0":
        assert shape(refused) == shape(real_refused)


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("signature", 4013),
        ("chain-signature=1", 4007),
        ("other-root", 4007),
        ("measurement=9", None),
        ("revoked=1", None),
    ],
)
def test_each_refusal_has_its_code_and_what_claims_can_say_is_said_by_claims(lie: str, code: int | None) -> None:
    with Services(Platform.build("hopper-1", lies=[f"gpu0:{lie}"])) as services:
        overall, devices = attest(services, GPU, "3.0")
    claims = parts(devices["GPU-0"])[1]
    assert claims.get("x-nvidia-error-details", {}).get("code") == code
    assert parts(overall[1])[1]["x-nvidia-overall-att-result"] is False


def test_the_key_set_has_the_shape_of_nvidias(real_data: Path, node: Services) -> None:
    real = json.loads((real_data / "tokens" / "nras-2026-06.jwks.json").read_bytes())
    simulated = requests.get(f"{node.nras_url}/.well-known/jwks.json", timeout=30).json()
    assert shape(simulated) == shape(real)
    (key,) = simulated["keys"]
    assert key["kid"] == parts(attest(node, GPU, "2.0")[0][1])[0]["kid"]
    leaf, issuer = (x509.load_der_x509_certificate(base64.b64decode(text)) for text in key["x5c"])
    leaf.verify_directly_issued_by(issuer)


def test_a_revocation_answer_has_the_shape_of_nvidias(real_data: Path) -> None:
    def of(der: bytes) -> dict[str, object]:
        answer = ocsp.load_der_ocsp_response(der)
        (responder,) = answer.certificates
        (single,) = answer.responses
        return {
            "signature": answer.signature_algorithm_oid, "by hash": answer.responder_key_hash is not None,
            "extensions": [extension.oid for extension in answer.extensions], "status": single.certificate_status,
            "single extensions": [extension.oid for extension in answer.single_extensions],
            "hash": type(single.hash_algorithm), "window": single.next_update_utc - single.this_update_utc,
            "produced": answer.produced_at_utc - single.this_update_utc,
            "responder": [(extension.oid, extension.critical) for extension in responder.extensions],
            "responder's": responder.signature_algorithm_oid,
        }  # fmt: skip

    platform = Platform.build("hopper-1")
    simulated = [of(der) for der in platform.ocsp_answers().values()]
    for path in sorted((real_data / "ocsp").glob("*.der")):
        real = of(path.read_bytes())
        assert real in simulated, path.name
    assert len(simulated) == len(list((real_data / "ocsp").glob("*.der")))
    assert simulated[0]["window"] == timedelta(days=1)


@pytest.mark.parametrize("name", ["hopper-1", "hopper-8-ppcie", "blackwell-1", "blackwell-8-mpt"])
def test_a_rim_has_the_elements_and_attributes_of_nvidias(real_data: Path, name: str) -> None:
    def of(content: bytes) -> set[str]:
        found = set()

        def walk(element: Any, path: str) -> None:
            here = f"{path}/{etree.QName(element).localname}"
            found.add(here)
            found.update(f"{here}@{etree.QName(attribute).localname}" for attribute in element.attrib)
            for child in element.iterchildren("*"):
                walk(child, here)

        walk(etree.fromstring(content), "")
        return found

    real = [of(path.read_bytes()) for path in (real_data / "rim").glob("*.xml")]
    # Minimum SVNs of the newest devices (NVAT 2.0.0): no RIM with them is among the captures.
    newer = {f"/SoftwareIdentity/Payload/Resource@{attribute}" for attribute in ("minSvn", "includeInResult")}
    for content in Platform.build(name).rims().values():
        assert of(content) - newer == real[0]
    assert all(other == real[0] for other in real)


def test_the_envelope_of_a_rim_has_the_members_that_clients_of_nvidias_service_read(node: Services) -> None:
    # Of the envelope there is no capture, only what clients in public read of it.
    rim_id = node.platform.rim_ids[0]
    envelope = requests.get(f"{node.rim_url}/v1/rim/{rim_id}", timeout=30).json()
    assert sorted(envelope) == ["id", "last_updated", "request_id", "rim", "rim_format", "sha256"]
    assert {type(value) for value in envelope.values()} == {str}
    assert base64.b64decode(envelope["rim"]) == node.platform.rim(rim_id)


def test_the_root_that_a_chain_comes_with_is_replaced_as_nvidias_verifiers_do(real_data: Path) -> None:
    """NVIDIA's Python SDK sends the chain with NVIDIA's own root at its end, whatever the driver said."""
    nvidias = (real_data / "roots" / "nvidia-device-identity-ca.pem").read_bytes()
    for lie, good in ((None, True), ("gpu0:other-root", False)):
        with Services(Platform.build("hopper-1", lies=[lie] if lie else [])) as services:
            body = json.loads(request_body(evidence_of(services.platform), NONCE, "3.0"))
            (item,) = body["evidence_list"]
            own = base64.b64decode(item["certificate"]).split(b"-----BEGIN")[1:-1]
            item["certificate"] = base64.b64encode(b"-----BEGIN".join([b"", *own]) + nvidias).decode()
            overall, _ = post(services, json.dumps(body)).json()
        assert parts(overall[1])[1]["x-nvidia-overall-att-result"] is good


def test_revocation_is_asked_live_by_the_remote_service_and_ids_are_never_reused(node: Services) -> None:
    tokens = [attest(node, GPU, "3.0") for _ in range(2)]
    ids = [parts(token)[1]["jti"] for overall, devices in tokens for token in (overall[1], *devices.values())]
    assert len(ids) == len(set(ids)) == 2 * 9
    for token in tokens[0][1].values():
        claims = parts(token)[1]
        for chain in ("attestation-report", "driver-rim", "vbios-rim"):
            said = claims[f"x-nvidia-gpu-{chain}-cert-chain"]
            assert (said["x-nvidia-cert-ocsp-status"], said["x-nvidia-cert-ocsp-nonce-matches"]) == ("good", True)


def test_the_remote_service_has_both_versions_and_says_that_it_is_there(node: Services) -> None:
    body = request_body(evidence_of(node.platform), NONCE, "2.0")
    assert post(node, body, "/v3/attest/gpu").status_code == 200
    assert post(node, body, "/v5/attest/gpu").status_code == 404
    for path in ("/", "/health"):
        answer = requests.get(node.nras_url + path, timeout=30)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        answer.json()


@pytest.mark.parametrize(
    ("kind", "path", "change"),
    [
        (GPU, PATHS[SWITCH], {}), (SWITCH, PATHS[GPU], {}), (GPU, PATHS[GPU], {"claims_version": "5.0"}),
        (GPU, PATHS[GPU], {"claims_version": 3}), (SWITCH, PATHS[SWITCH], {"claims_version": "4.0"}),
        (GPU, PATHS[GPU], {"nonce": "xyz"}), (GPU, PATHS[GPU], {"evidence_list": []}),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(node: Services, kind: DeviceKind, path: str, change: dict[str, Any]) -> None:
    body = json.loads(request_body(evidence_of(node.platform, kind), NONCE, "3.0"))
    answer = post(node, json.dumps({**body, **change}), path)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert post(node, "[1", path).status_code == 400
    assert post(node, "[1]", path).status_code == 400


def test_a_service_key_is_checked_where_one_is_set() -> None:
    platform = Platform.build("hopper-1")
    body = request_body(evidence_of(platform), NONCE, "2.0")
    with Services(platform, service_key="k") as services:
        for headers, status in (({}, 401), ({"Authorization": "Bearer x"}, 403), ({"Authorization": "Bearer k"}, 200)):
            assert post(services, body, **headers).status_code == status
            url = f"{services.rim_url}/v1/rim/{platform.rim_ids[0]}"
            assert requests.get(url, headers=headers, timeout=30).status_code == status
        assert requests.get(f"{services.nras_url}/.well-known/jwks.json", timeout=30).status_code == 200


def test_each_service_has_a_latency_of_its_own() -> None:
    platform = Platform.build("hopper-1")
    with Services(platform, delay={"ocsp": 0.25}) as services:
        assert [services.delay_of(name) for name in ("rim", "ocsp", "nras")] == [0.0, 0.25, 0.0]
        requests.post(services.ocsp_url, data=b"no request", timeout=30)
        requests.get(f"{services.rim_url}/v1/rim/{platform.rim_ids[0]}", timeout=30)
        took = {item.service: item.ended - item.started for item in services.log}
    assert took["ocsp"] >= 0.25


def test_a_rate_limit_says_when_to_come_back() -> None:
    with Services(Platform.build("hopper-1"), faults=["rim:rate-limited=7"]) as services:
        answer = requests.get(f"{services.rim_url}/v1/rim/NV_A", timeout=30)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /ocsp HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /ocsp HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST /ocsp HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /ocsp HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST /ocsp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello more\r\n", 400),
        (b"POST /ocsp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nff0000000\r\n", 413),
        (b"PUT /v1/rim/x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    ],
)
def test_what_is_no_request_in_http_gets_an_answer_of_a_service(
    node: Services, request_bytes: bytes, status: int
) -> None:
    address = node.rim_url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=30) as connection:
        connection.sendall(request_bytes)
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        assert answer.getheader("Content-Type") == "application/json"
        assert answer.getheader("Server") is None
        assert json.loads(answer.read())["error"]


def test_a_body_may_come_in_chunks_as_some_clients_send_it(node: Services) -> None:
    body = request_body(evidence_of(node.platform), NONCE)
    parts = iter([body[:10], body[10:]])
    with requests.Session() as session:
        answer = session.post(node.nras_url + PATHS[GPU], data=parts, timeout=30)
        assert answer.status_code == 200
        assert answer.json()[0][0] == "JWT"
        # The connection is still in step.
        assert session.head(node.nras_url + "/health", timeout=30).status_code == 200
        assert session.get(node.nras_url + "/health", timeout=30).json() == {"status": "UP"}


def test_an_answer_is_dated_by_the_clock_of_the_services(node: Services) -> None:
    for url in (node.rim_url + "/v1/rim/NV_NONE", node.nras_url + "/health"):
        date = requests.get(url, timeout=30).headers["Date"]
        assert parsedate_to_datetime(date) == node.platform.clock.replace(microsecond=0)
