"""The public calls: what they take, what they do in which order, and that they agree with one another."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import nvattest
from nvattest import DeviceKind, Evidence, EvidencePolicy, InputError, Nonce, VerificationTime
from nvattest.testing import DEFAULT_NONCE, BuildPlatform, Platform

OFFLINE = nvattest.GatherOptions(offline=True)


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform.build("hopper-1")


def judged(appraisal: nvattest.Appraisal) -> object:
    return [(check.id, check.outcome) for device in appraisal.devices for check in device.checks]


def test_evidence_and_bundles_are_objects_text_or_json(platform: Platform) -> None:
    text, bundle = platform.evidence_json(None, DEFAULT_NONCE), platform.bundle()
    evidence = nvattest.load_evidence(text)
    rest = {"nonce": DEFAULT_NONCE, "at": platform.time, "anchors": platform.trust_anchors()}
    forms = [
        nvattest.verify(given, collateral=collateral, **rest)  # type: ignore[arg-type]  # the names are right
        for given in (evidence, list(evidence), evidence[0], text, text.encode(), json.loads(text))
        for collateral in (platform.collateral(), bundle, json.dumps(bundle), json.dumps(bundle).encode())
    ]
    assert all(appraisal.trusted for appraisal in forms)
    assert len({str(judged(appraisal)) for appraisal in forms}) == 1


@pytest.mark.parametrize(
    "nonce", [DEFAULT_NONCE, DEFAULT_NONCE.hex(), Nonce(DEFAULT_NONCE)], ids=["bytes", "hex", "Nonce"]
)
def test_a_nonce_is_bytes_hexadecimal_digits_or_a_nonce(platform: Platform, nonce: bytes | str | Nonce) -> None:
    appraisal = nvattest.verify(
        platform.evidence(DEFAULT_NONCE),
        collateral=platform.collateral(),
        nonce=nonce,
        at=platform.time.device,
        anchors=platform.trust_anchors(),
    )
    assert appraisal.trusted
    assert appraisal.nonce == Nonce(DEFAULT_NONCE)
    assert appraisal.at == platform.time


@pytest.mark.parametrize("nonce", [b"short", "0x", DEFAULT_NONCE.hex()[:-1], bytearray(32), 7])
def test_another_nonce_is_refused_before_anything_is_read(platform: Platform, nonce: object) -> None:
    for call in (
        lambda: nvattest.verify(platform.evidence(DEFAULT_NONCE), collateral=platform.collateral(), nonce=nonce),  # type: ignore[arg-type]
        lambda: nvattest.collect(nonce),  # type: ignore[arg-type]
        lambda: nvattest.attest(nonce=nonce),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code in ("nonce-size", "nonce-hex", "nonce-type")


@pytest.mark.parametrize(("at", "code"), [(datetime(2026, 1, 1), "time-zone"), ("2026-01-01T00:00:00Z", "time")])  # noqa: DTZ001
def test_an_instant_has_a_zone_and_is_no_text(platform: Platform, at: object, code: str) -> None:
    with pytest.raises(InputError) as caught:
        nvattest.verify((), collateral=platform.collateral(), nonce=DEFAULT_NONCE, at=at)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_the_name_of_a_file_is_not_its_text(platform: Platform) -> None:
    for call in (
        lambda: nvattest.verify("evidence.json", collateral=platform.collateral(), nonce=None),
        lambda: nvattest.verify(platform.evidence(DEFAULT_NONCE), collateral="bundle.json", nonce=None),
    ):
        with pytest.raises(nvattest.ParseError) as caught:
            call()
        assert caught.value.hint == "give the text itself, not the name of its file"


@pytest.mark.parametrize(
    "wrong", [None, 7, [None], [[]], {}, iter(())], ids=["null", "number", "nulls", "lists", "object", "iterator"]
)
def test_what_is_neither_evidence_nor_collateral_is_refused_as_such(platform: Platform, wrong: object) -> None:
    with pytest.raises(nvattest.ParseError):
        nvattest.verify(wrong, collateral=platform.collateral(), nonce=DEFAULT_NONCE)  # type: ignore[arg-type]
    with pytest.raises(nvattest.ParseError):
        nvattest.verify(platform.evidence(DEFAULT_NONCE), collateral=wrong, nonce=DEFAULT_NONCE)  # type: ignore[arg-type]


def test_no_device_is_not_trusted(platform: Platform) -> None:
    assert not nvattest.verify((), collateral=platform.collateral(), nonce=DEFAULT_NONCE).trusted


def test_a_verifier_that_is_given_keeps_its_own_anchors_and_policy(platform: Platform) -> None:
    verifier = nvattest.Verifier(anchors=platform.trust_anchors())
    evidence, collateral = platform.evidence(DEFAULT_NONCE), platform.collateral()
    appraisal = nvattest.verify(
        evidence, collateral=collateral, nonce=DEFAULT_NONCE, at=platform.time, verifier=verifier
    )
    assert appraisal.trusted
    with pytest.raises(TypeError, match="its own anchors and policy"):
        nvattest.verify(evidence, collateral=collateral, nonce=None, verifier=verifier, policy=EvidencePolicy())


def test_attest_of_evidence_needs_the_nonce_that_it_was_asked_for(platform: Platform) -> None:
    evidence = platform.evidence(DEFAULT_NONCE)
    rest = {
        "known": platform.bundle(),
        "options": OFFLINE,
        "at": platform.time,
        "anchors": platform.trust_anchors(),
    }
    assert nvattest.attest(evidence, nonce=DEFAULT_NONCE, **rest).trusted  # type: ignore[arg-type]
    without = nvattest.attest(evidence, **rest)  # type: ignore[arg-type]
    assert not without.trusted
    assert [check.id for _, check in without.failures if check.id == "nonce"] == ["nonce"]


def test_attest_asks_the_devices_over_a_new_nonce_each_time(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Nonce] = []

    def gpus(nonce: Nonce, **_: object) -> tuple[Evidence, ...]:
        asked.append(nonce)
        return platform.evidence(nonce, DeviceKind.GPU)

    monkeypatch.setattr("nvattest.devices.collect.collect_gpus", gpus)
    for _ in range(2):
        appraisal = nvattest.attest(
            known=platform.collateral(), options=OFFLINE, at=platform.time, anchors=platform.trust_anchors()
        )
        assert appraisal.trusted
        assert appraisal.nonce == asked[-1]
    assert asked[0] != asked[1]


def test_collect_asks_each_kind_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Platform.build("hopper-8-ppcie")
    seen: list[dict[str, object]] = []

    def gpus(nonce: Nonce, **settings: object) -> tuple[Evidence, ...]:
        seen.append(settings)
        return board.evidence(nonce, DeviceKind.GPU)

    monkeypatch.setattr("nvattest.devices.collect.collect_gpus", gpus)
    monkeypatch.setattr(
        "nvattest.devices.collect.collect_switches", lambda nonce, timeout: board.evidence(nonce, DeviceKind.NVSWITCH)
    )
    evidence = nvattest.collect(DEFAULT_NONCE, kinds=tuple(DeviceKind), timeout=7.0, allow_devtools=True)
    assert [item.kind for item in evidence] == [DeviceKind.GPU] * 8 + [DeviceKind.NVSWITCH] * 4
    assert seen == [{"timeout": 7.0, "allow_devtools": True}]


@pytest.mark.parametrize("kinds", ["nvswitch", ["nvswitch"], [DeviceKind.GPU, "gpu"], [None]])
def test_a_word_is_no_kind_of_device(monkeypatch: pytest.MonkeyPatch, kinds: object) -> None:
    asked: list[object] = []
    for name in ("collect_gpus", "collect_switches"):
        monkeypatch.setattr(f"nvattest.devices.collect.{name}", lambda *_, **__: asked.append(1) or [])
    with pytest.raises(InputError) as refused:
        nvattest.collect(bytes(32), kinds=kinds)  # type: ignore[arg-type]
    assert refused.value.code == "device-kind"
    assert not asked


def test_the_clock_is_read_again_after_the_collateral_is_there(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    instants: Iterator[VerificationTime] = iter(
        VerificationTime.at(datetime(2026, 1, 1, 0, 0, second, tzinfo=timezone.utc)) for second in range(9)
    )
    seen: list[VerificationTime] = []

    def gather(*_: object, at: VerificationTime, **__: object) -> nvattest.Collateral:
        seen.append(at)
        return platform.collateral()

    monkeypatch.setattr("nvattest.session.now", lambda: next(instants))
    monkeypatch.setattr("nvattest.collateral.gather.gather", gather)
    appraisal = nvattest.attest(platform.evidence(DEFAULT_NONCE), nonce=DEFAULT_NONCE)
    assert seen[0].device < appraisal.at.device


def test_collateral_is_fetched_in_the_revocation_mode_of_the_policy(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[nvattest.GatherOptions] = []

    def gather(_: object, options: nvattest.GatherOptions, **__: object) -> nvattest.Collateral:
        seen.append(options)
        return platform.collateral()

    monkeypatch.setattr("nvattest.collateral.gather.gather", gather)
    fresh = EvidencePolicy(revocation=nvattest.RevocationMode.FRESH)
    nvattest.fetch_collateral(platform.evidence(DEFAULT_NONCE), policy=fresh)
    assert [options.revocation for options in seen] == [nvattest.RevocationMode.FRESH]


@pytest.mark.parametrize("ear", [False, True])
def test_an_issued_token_verifies_under_its_key(platform: Platform, ear: bool) -> None:
    key = nvattest.SigningKey.generate()
    token = nvattest.issue_token(platform.appraise(), key, ear=ear, issuer="me", now=platform.clock)
    verified = nvattest.verify_token(
        token,
        issuer="me",
        nonce=Nonce(DEFAULT_NONCE),
        at=platform.clock,
        key=key.public,
        accept_simulated=True,
    )
    # An EAR about simulated devices affirms nothing.
    assert verified.overall is not ear
    assert verified.kind is (nvattest.TokenKind.EAR if ear else nvattest.TokenKind.DETACHED_EAT)


def test_a_token_is_checked_by_the_clock_of_now_where_none_is_given(platform: Platform) -> None:
    now, key = datetime.now(timezone.utc), platform.token_key
    rest = {
        "issuer": "NVATTEST-LOCAL-VERIFIER",
        "nonce": DEFAULT_NONCE.hex(),
        "key": key.public,
        "accept_simulated": True,
    }
    fresh = nvattest.issue_token(platform.appraise(), key, now=now)
    assert nvattest.verify_token(fresh, **rest).trusted  # type: ignore[arg-type]
    expired = nvattest.issue_token(platform.appraise(), key, now=now - timedelta(days=1))
    with pytest.raises(nvattest.TokenError) as caught:
        nvattest.verify_token(expired, **rest)  # type: ignore[arg-type]
    assert caught.value.code == "expired"
    before = VerificationTime.at(now - timedelta(days=1))
    assert nvattest.verify_token(expired, at=before, **rest).trusted  # type: ignore[arg-type]


@pytest.mark.parametrize("ear", [False, True])
def test_a_platform_gives_the_token_of_its_appraisal(ear: bool, nvattest_platform: BuildPlatform) -> None:
    good, bad = nvattest_platform("hopper-1"), nvattest_platform("hopper-1", lies=["gpu0:measurement=9"])
    for platform, trusted in ((good, not ear), (bad, False)):
        verified = nvattest.verify_token(
            platform.token(DEFAULT_NONCE, ear=ear),
            issuer="NVATTEST-LOCAL-VERIFIER",
            nonce=DEFAULT_NONCE,
            at=platform.clock,
            key=platform.token_key.public,
            accept_simulated=True,
        )
        assert verified.trusted is trusted
    assert good.token_key.public == nvattest_platform("blackwell-1").token_key.public
    assert good.token_key.public != nvattest_platform("hopper-1", seed=1).token_key.public


def test_the_type_of_the_fixture_is_that_of_build() -> None:
    named, build = (inspect.signature(call).parameters for call in (BuildPlatform.__call__, Platform.build))
    assert list(named)[1:] == list(build)
    assert [named[name].default for name in build] == [build[name].default for name in build]


@pytest.mark.parametrize("module", ["nvattest.testing", "nvattest.testing.pytest_plugin", "nvattest.compat",
                                    "nvattest.compat.nv_attestation_sdk", "nvattest.compat.nv_attestation_sdk.attestation",
                                    "nvattest.compat.verifier", "nvattest.compat.verifier.cc_admin"])  # fmt: skip
def test_what_is_public_beside_the_package_is_listed_there_and_resolves(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__all__ == sorted(found.__all__, key=lambda name: (not name.isupper(), name))
    for name in found.__all__:
        assert getattr(found, name) is getattr(found, name)


def test_a_check_and_its_outcome_are_not_taken_for_a_pass(platform: Platform) -> None:
    refused = nvattest.verify(platform.collect(DEFAULT_NONCE), collateral=platform.collateral(), nonce=bytes(32))
    failed = refused.devices[0].check("nonce")
    assert failed is not None
    assert failed.outcome is nvattest.Outcome.FAIL
    for value in (failed, failed.outcome):
        with pytest.raises(TypeError, match="neither true nor false"):
            bool(value)


@pytest.mark.parametrize("wrong", [{1: 2}, {"a": {None: 1}}, {1: {"evidences": None}}, bytearray(b"[]"), {1, 2}])
def test_an_object_that_no_json_holds_is_no_evidence(platform: Platform, wrong: object) -> None:
    with pytest.raises(nvattest.ParseError) as refused:
        nvattest.verify(wrong, collateral=platform.collateral(), nonce=DEFAULT_NONCE)  # type: ignore[arg-type]
    assert refused.value.code == "evidence-form"
    assert "null" not in refused.value.message


@pytest.mark.parametrize("ear", [False, True])
def test_a_token_holds_nothing_that_json_does_not_have(platform: Platform, ear: bool) -> None:
    deep: object = {}
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, object] = {}
    circle["matched"] = circle
    appraisal = platform.appraise()
    for wrong in ({"matched": float("nan")}, {"matched": deep}, circle, {"matched": {1, 2}}):
        with pytest.raises(InputError) as refused:
            nvattest.issue_token(appraisal, platform.token_key, ear=ear, relying_party=wrong)
        assert refused.value.code == "payload"


MISTAKES: dict[str, tuple[str, dict[str, object]]] = {
    "evidence": ("verify", {"evidence": Path("evidence.json")}),
    "bundle": ("verify", {"collateral": Path("bundle.json")}),
    "policy": ("verify", {"policy": "strict.toml"}),
    "anchors": ("verify", {"anchors": "roots.pem"}),
    "verifier": ("verify", {"verifier": "nvidia"}),
    "guest": ("verify", {"guest": b"quote"}),
    "options": ("fetch_collateral", {"options": {"offline": True}}),
    "allow_devtools": ("collect", {"allow_devtools": "no"}),
    "kinds": ("collect", {"kinds": DeviceKind.GPU}),
    "quote": ("fetch_cpu_collateral", {"quote": "quote.bin"}),
    "appraisal": ("issue_token", {"appraisal": True}),
    "key": ("issue_token", {"key": "key.pem"}),
    "ear": ("issue_token", {"ear": "no"}),
    "accept_simulated": ("verify_token", {"accept_simulated": "no"}),
    "refuse_weakened": ("verify_token", {"refuse_weakened": "yes"}),
    "kind": ("verify_token", {"kind": "ear"}),
}


@pytest.mark.parametrize("argument", MISTAKES)
def test_an_argument_of_another_type_is_refused_by_its_name(platform: Platform, argument: str) -> None:
    name, wrong = MISTAKES[argument]
    right: dict[str, dict[str, object]] = {
        "verify": {
            "evidence": platform.evidence(DEFAULT_NONCE), "collateral": platform.collateral(), "nonce": DEFAULT_NONCE,
        },
        "fetch_collateral": {"evidence": platform.evidence(DEFAULT_NONCE)},
        "collect": {"nonce": DEFAULT_NONCE},
        "fetch_cpu_collateral": {},
        "issue_token": {"appraisal": platform.appraise(), "key": nvattest.SigningKey.generate()},
        "verify_token": {"token": "a.b.c", "issuer": None, "nonce": DEFAULT_NONCE},
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        getattr(nvattest, name)(**(right[name] | wrong))
    assert str(caught.value).startswith(argument)
    assert type(wrong[min(wrong)]).__name__ in str(caught.value)


@pytest.mark.parametrize("options", [nvattest.GatherOptions, nvattest.CpuOptions])
def test_a_text_is_no_flag_of_options(options: Callable[..., object]) -> None:
    with pytest.raises(InputError, match="offline is a bool, not str"):
        options(offline="no")


def test_a_verifier_is_made_of_anchors_and_a_policy() -> None:
    for wrong in ({"anchors": "roots.pem"}, {"policy": b"x"}):
        with pytest.raises(InputError, match=f"{min(wrong)} is a "):
            nvattest.Verifier(**wrong)  # type: ignore[arg-type]  # the mistake
