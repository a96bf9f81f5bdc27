"""A verification over the network, counted on the wire, and every fault that a service can have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.cache import DiskCache
from nvattest.collateral.gather import GatherOptions, gather
from nvattest.collateral.http import HttpSettings
from nvattest.model import Nonce
from nvattest.testing import Platform
from nvattest.testing.services import Services

NONCE = bytes(range(32))


def load(platform: Platform):
    return platform.evidence(NONCE)


@pytest.fixture(scope="module")
def one() -> Platform:
    return Platform.build("hopper-1")


@pytest.fixture(scope="module")
def node() -> Platform:
    return Platform.build("hopper-8-ppcie")


@pytest.fixture
def cache(one, tmp_path) -> DiskCache:
    return DiskCache(str(tmp_path / "cache"), now=lambda: one.clock)


def kept(cache: DiskCache) -> list[str]:
    return sorted(path.name for path in Path(cache.folder).rglob("*.json"))


def verify(platform, services, *, cache=None, timeout=20.0, retries=1, **http):
    verifier = Verifier(anchors=platform.trust_anchors())
    evidence = load(platform)
    options = GatherOptions(
        rim_url=services.rim_url,
        ocsp_url=services.ocsp_url,
        http=HttpSettings(retries=retries, **http),
        timeout=timeout,
        cache=cache,
    )
    found = gather(evidence, options, at=platform.time, verifier=verifier)
    return verifier.appraise(evidence, nonce=Nonce(NONCE), collateral=found, at=platform.time)


# --- counted on the wire ---------------------------------------------------------------------------------------------


def test_one_gpu_takes_two_rims_seven_answers_and_two_waves(one, cache) -> None:
    with Services(one, delay=0.05) as services:
        assert verify(one, services, cache=cache).trusted
        assert sorted(services.requests("rim")) == sorted(one.rim_ids)
        assert len(services.requests("ocsp")) == 7
        assert len(services.log) == 9
        assert services.waves == 2


def test_a_node_asks_nothing_twice_in_two_waves_after_a_first_look_at_each_host(node) -> None:
    with Services(node, delay=0.05) as services:
        assert verify(node, services).trusted
        keys = [(item.service, item.key) for item in services.log]
        assert len(keys) == len(set(keys))
        assert len(services.requests("rim")) == 3
        # No more than four requests wait for a host that has not answered yet: an outage costs it few.
        assert services.waves <= 3


def test_a_second_run_asks_nobody(node, tmp_path) -> None:
    cache = DiskCache(str(tmp_path / "cache"), now=lambda: node.clock)
    with Services(node) as services:
        assert verify(node, services, cache=cache).trusted
        services.forget()
        assert verify(node, services, cache=cache).trusted
        assert services.log == []


def test_without_the_services_a_warm_cache_is_enough(one, cache) -> None:
    with Services(one) as services:
        assert verify(one, services, cache=cache).trusted
    assert verify(one, services, cache=cache).trusted


def test_over_https_it_is_the_same(one, tmp_path) -> None:
    with Services(one, tls=True) as services:
        (tmp_path / "ca.pem").write_bytes(services.ca_pem)
        assert verify(one, services, tls_ca_cert=str(tmp_path / "ca.pem")).trusted


# --- faults: the code, the message, no trust, nothing bad in the cache -----------------------------------------------

# fault, result code, a part of the message
RIM_FAULTS = [
    ("rim:slow=60", 103, "within"),
    ("rim:trickle=60", 103, "within"),
    ("rim:rate-limited=100", 15, "asks to wait 100 s"),
    ("rim:status=500", 102, "HTTP status 500"),
    ("rim:status=401", 101, "HTTP status 401"),
    ("rim:status=403", 101, "HTTP status 403"),
    ("rim:status=404", 104, "there is no NV_GPU"),
    ("rim:cut", 103, "cut off"),
    ("rim:drop", 103, "attempts"),
    ("rim:wrong-id", 102, "the answer is"),
    ("rim:wrong-sha256", 102, "SHA-256"),
    ("rim:huge=8", 102, "more than"),
    ("rim:html", 102, "<!DOCTYPE html>"),
    ("rim:redirect=https://example.invalid/", 102, "not followed"),
    ("rim:gzip", 102, "content coding"),
]
OCSP_FAULTS = [
    ("ocsp:slow=60", 202, "within"),
    ("ocsp:rate-limited=100", 15, "asks to wait 100 s"),
    ("ocsp:status=500", 202, "HTTP status 500"),
    ("ocsp:status=403", 205, "HTTP status 403"),
    ("ocsp:status=404", 202, "HTTP status 404"),
    ("ocsp:cut", 202, "cut off"),
    ("ocsp:drop", 202, "attempts"),
    ("ocsp:huge=1", 201, "more than"),
    ("ocsp:html", 201, "<!DOCTYPE html>"),
    ("ocsp:redirect=https://example.invalid/", 202, "not followed"),
]


def check(appraisal, suffix, code, text) -> None:
    assert not appraisal.trusted
    failed = [item for _, item in appraisal.failures if item.id.endswith(suffix)]
    assert failed
    assert text in failed[0].detail
    assert failed[0].hint
    assert failed[0].code == code


@pytest.mark.parametrize(("fault", "code", "text"), RIM_FAULTS)
def test_a_fault_of_the_rim_service_is_named_and_leaves_nothing(one, cache, fault, code, text) -> None:
    with Services(one, faults=[fault]) as services:
        appraisal = verify(one, services, cache=cache, timeout=0.6 if "60" in fault else 20)
        assert services.rim_url in str([c.detail for _, c in appraisal.failures])
    check(appraisal, "rim-available", code, text)
    # The device's own certificates were asked about all the same, so the RIM is what is told to the shell.
    assert appraisal.result_code == code
    assert not [name for name in kept(cache) if name.startswith("NV_")]


@pytest.mark.parametrize(("fault", "code", "text"), OCSP_FAULTS)
def test_a_fault_of_the_responder_is_named_and_leaves_nothing(one, cache, fault, code, text) -> None:
    with Services(one, faults=[fault]) as services:
        appraisal = verify(one, services, cache=cache, timeout=1.0 if "60" in fault else 20)
    check(appraisal, "chain-revocation", code, text)
    assert appraisal.result_code == code
    assert [name for name in kept(cache) if not name.startswith("NV_")] == []


def test_an_unknown_ca_is_named_and_leaves_nothing(one, cache) -> None:
    with Services(one, tls=True) as services:
        appraisal = verify(one, services, cache=cache)
        assert services.log == []
    check(appraisal, "rim-available", 103, "certificate verify failed")
    assert kept(cache) == []


@pytest.mark.parametrize(
    "fault", ["rim:status=500*2", "ocsp:status=503*3", "rim:drop*1", "ocsp:cut*1", "rim:rate-limited=0*1"]
)
def test_a_fault_that_passes_does_no_harm(one, cache, fault) -> None:
    with Services(one, faults=[fault]) as services:
        assert verify(one, services, cache=cache, retries=5).trusted
    assert len(kept(cache)) == 9


def test_one_missing_rim_does_not_hide_the_others(one, cache) -> None:
    driver = next(rim_id for rim_id in one.rim_ids if "DRIVER" in rim_id)
    with Services(one, faults=[f"rim:status=404@{driver}"]) as services:
        appraisal = verify(one, services, cache=cache)
        # The VBIOS RIM was verified and its signers were asked about.
        assert len(services.requests("ocsp")) > 3
    assert appraisal.result_code == 104
    assert driver in appraisal.failures[0][1].detail


def test_answers_about_another_certificate_are_not_taken(one, cache) -> None:
    with Services(one, faults=["ocsp:other-certificate"]) as services:
        appraisal = verify(one, services, cache=cache)
    assert not appraisal.trusted
    assert appraisal.result_code == 201
    assert len([name for name in kept(cache) if not name.startswith("NV_")]) <= 1  # the first had no other before it


@pytest.mark.parametrize(
    "lie", ["ocsp-nonce", "ocsp-no-nonce", "ocsp-signature", "wrong-responder", "revoked", "hold", "stale", "unknown"]
)
def test_an_answer_that_is_not_good_is_neither_trusted_nor_kept(cache, lie) -> None:
    platform = Platform.build("hopper-1", lies=[f"gpu0:{lie}=2"])
    with Services(platform) as services:
        assert not verify(platform, services, cache=cache).trusted
        services.forget()
        # Were it kept, it would be taken from the cache now.
        assert not verify(platform, services, cache=cache).trusted
        assert len(services.requests("ocsp")) == 1


@pytest.mark.parametrize("lie", ["signature", "other-root", "wrong-version"])
def test_a_rim_that_is_not_good_is_neither_trusted_nor_kept(cache, lie) -> None:
    platform = Platform.build("hopper-1", lies=[f"driver-rim:{lie}"])
    with Services(platform) as services:
        assert not verify(platform, services, cache=cache).trusted
        services.forget()
        assert not verify(platform, services, cache=cache).trusted
        assert ["DRIVER" in rim_id for rim_id in services.requests("rim")] == [True]


# --- a whole process, with the network forbidden ---------------------------------------------------------------------

FORBIDDEN = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = socket.create_connection = refuse
from nvattest.cli import main
sys.argv = ["nvattest", *sys.argv[1:]]
status = main()
assert "requests" not in sys.modules, "requests was imported"
sys.exit(status)
"""


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_with_a_bundle_nothing_goes_to_the_network(one, tmp_path) -> None:
    from nvattest.model import DeviceKind

    (tmp_path / "gpu.json").write_text(one.evidence_json(DeviceKind.GPU, NONCE))
    (tmp_path / "bundle.json").write_text(json.dumps(one.bundle()))
    (tmp_path / "roots.pem").write_bytes(one.anchors_pem)
    done = python(
        FORBIDDEN, "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(tmp_path / "gpu.json"),
        "--bundle", str(tmp_path / "bundle.json"), "--trust-anchors", str(tmp_path / "roots.pem"),
        "--nonce", NONCE.hex(), "--at", str(one.time), "--cache-dir", str(tmp_path / "cache"),
    )  # fmt: skip
    assert "Result: TRUSTED" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert not (tmp_path / "cache").exists()
