"""One verdict for a guest and its devices: the attack table, each check, what is said, and what stays simulated."""

from __future__ import annotations

import base64
import builtins
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import jsonschema
import pytest

from nvattest import Nonce, SigningKey, VerifiedToken, appraisal_to_json, verify, verify_token
from nvattest._package import schema_bytes
from nvattest.appraisal.check import CHECKS, REQUIRED_GUEST, Outcome
from nvattest.appraisal.guest import CpuPolicy, DeviceSide, GuestAppraisal, SnpDemands, Strength, TcbFloor, TdxDemands
from nvattest.appraisal.identity import identity_of
from nvattest.errors import InputError, NotTrustedError, ResultCode, TokenError
from nvattest.evidence import dump_evidence
from nvattest.pki.anchors import CPU_ANCHORS, CpuAnchors, cpu_anchors_from_pem
from nvattest.pki.certificate import parse_pem_chain
from nvattest.report.page import report_page
from nvattest.report.reading import read_appraisal, view_of
from nvattest.report.terminal import Terminal
from nvattest.report.text import account, story
from nvattest.session import issue_token
from nvattest.tee.collateral import SnpCollateral, snp_collateral
from nvattest.tee.guest import Guest
from nvattest.tee.quote import dump_quote, parse_quote, read_quote_file
from nvattest.tee.recipes import Challenge, Demand, ExpectedReportData
from nvattest.testing import Platform
from nvattest.testing.cpu import GUESTS, SimulatedGuest
from nvattest.token.binding import derive_device_nonce, evidence_digest_of, report_data

CHALLENGE = bytes(range(32))
OTHER = bytes(range(1, 33))
KINDS = ["tdx", "snp-genoa"]
ALL_KINDS = [*GUESTS, *(f"snp-{name}-vlek" for name in ("genoa", "siena", "turin"))]
CSP = "CN=simulation.nvattest.invalid"

pytest.importorskip("dcap_qvl")


def policy_of(guest: SimulatedGuest, **change: Any) -> CpuPolicy:
    """What the guest's own software and firmware satisfy, and no other."""
    measured = (guest.measurement.hex(),)
    if guest.registers:
        registers = {f"rtmr{index}": (value.hex(),) for index, value in enumerate(guest.registers)}
        return CpuPolicy(tdx=TdxDemands(**{"mrtd": measured, **registers, **change}))
    floors = {
        "milan": TcbFloor(boot_loader=4, snp=24, microcode=219),
        "genoa": TcbFloor(boot_loader=10, snp=23, microcode=84),
        "siena": TcbFloor(boot_loader=10, snp=23, microcode=27),
        "turin": TcbFloor(fmc=1, boot_loader=2, tee=1, snp=4, microcode=75),
    }
    kind = "vlek" if guest.kind.endswith("vlek") else "vcek"
    strict = {"measurement": measured, "minimum_tcb": floors, "endorsement": (kind,), "csp_id": (CSP,)}
    return CpuPolicy(snp=SnpDemands(**strict | change))


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One run of ours in a simulated guest: a challenge, a key, devices, a token and a quote over all of them."""

    platform: Platform
    cpu: SimulatedGuest
    key: SigningKey
    challenge: bytes
    nonce: Nonce
    evidence: tuple[Any, ...]
    quote: bytes

    @classmethod
    def make(cls, kind: str = "snp-genoa", *, seed: int = 0, challenge: bytes = CHALLENGE, lies: Any = ()) -> Bound:
        platform = Platform.build("hopper-1", seed=seed)
        key = SigningKey.generate()
        nonce = derive_device_nonce(challenge, key.public.thumbprint_bytes)
        evidence = platform.evidence(nonce)
        cpu = SimulatedGuest(kind, seed=seed, lies=lies)
        digest = evidence_digest_of([(item.report, item.certificate_chain) for item in evidence])
        covered = report_data(challenge, key.public.thumbprint_bytes, digest)
        quote = json.dumps(dump_quote(cpu.take_quote(covered))).encode()
        return cls(
            platform=platform, cpu=cpu, key=key, challenge=challenge, nonce=nonce, evidence=evidence, quote=quote
        )

    @property
    def clock(self) -> datetime:
        return self.cpu.clock

    def guest(self, **change: Any) -> Guest:
        values: dict[str, Any] = {
            "quote": self.quote, "policy": policy_of(SimulatedGuest(self.cpu.kind, seed=0)),
            "recipe": Challenge(challenge=self.challenge), "collateral": self.cpu.collateral(),
            "anchors": self.cpu.anchors(),
        }  # fmt: skip
        return Guest(**values | change)

    def token(self, **lies: Any) -> object:
        appraisal = self.platform.appraise(self.nonce, **lies)
        return issue_token(appraisal, self.key, now=self.clock)

    def verified(
        self, guest: Guest, *, token: object = None, nonce: Nonce | None = None, key: Any = None
    ) -> VerifiedToken:
        return verify_token(
            self.token() if token is None else token, issuer=None, nonce=nonce or self.nonce, at=self.clock,
            key=key or self.key.public, accept_simulated=True, guest=guest,
        )  # fmt: skip


def detail_of(appraisal: GuestAppraisal, name: str) -> str:
    check = appraisal.check(name)
    assert check is not None
    return check.detail


def refusing(appraisal: GuestAppraisal | None) -> set[str]:
    assert appraisal is not None
    return {check.id for check in appraisal.failures if check.outcome is not Outcome.SKIPPED}


@pytest.fixture(params=KINDS)
def bound(request: pytest.FixtureRequest) -> Bound:
    return Bound.make(request.param)


# --- the good verdict ---------------------------------------------------------------------------------------------------


def test_a_guest_and_its_devices_are_one_good_verdict_beside_a_token(bound: Bound) -> None:
    verified = bound.verified(bound.guest())
    guest = verified.guest
    assert guest is not None
    assert (verified.trusted, guest.trusted, guest.strength) == (True, True, Strength.KEY_AND_EVIDENCE)
    assert [check.id for check in guest.checks] == list(REQUIRED_GUEST)
    assert guest.weakened == ()
    assert guest.key == bound.key.public.thumbprint
    assert (
        f"holds key {bound.key.public.thumbprint}, asked this device with your challenge, and it is trusted"
        in guest.sentence
    )
    assert "attach" not in guest.sentence


def test_the_same_beside_the_evidence_itself(bound: Bound) -> None:
    recipe = Challenge(challenge=bound.challenge, key_thumbprint=bound.key.public.thumbprint_bytes)
    appraisal = verify(
        bound.evidence, collateral=bound.platform.collateral(), nonce=bound.nonce, at=bound.clock,
        anchors=bound.platform.trust_anchors(), guest=bound.guest(recipe=recipe),
    )  # fmt: skip
    assert appraisal.guest is not None
    assert appraisal.trusted
    assert appraisal.require() is appraisal
    assert appraisal.guest.strength is Strength.KEY_AND_EVIDENCE


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_of_guest_is_trusted_under_its_own_strict_policy(kind: str) -> None:
    cpu = SimulatedGuest(kind)
    expected = bytes(64)
    guest = Guest(
        quote=cpu.quote(expected), policy=policy_of(cpu), recipe=ExpectedReportData(report_data=expected),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    appraisal = guest.appraise(DEVICES, cpu.clock)
    assert appraisal.failures == ()
    assert (appraisal.trusted, appraisal.simulated, appraisal.anchors) == (True, True, "simulated")


DEVICES = DeviceSide(trusted=True, number=2, nonce=bytes(32), digest=None, key=None, identities=("1", "2"))


def test_the_nonce_follows_from_the_challenge_where_the_caller_gives_none(bound: Bound) -> None:
    arguments: dict[str, Any] = {"issuer": None, "nonce": None, "at": bound.clock, "key": bound.key.public}
    verified = verify_token(bound.token(), guest=bound.guest(), accept_simulated=True, **arguments)
    assert verified.trusted
    assert verified.require() is verified
    for guest in (None, bound.guest(recipe=ExpectedReportData(report_data=bytes(64)))):
        with pytest.raises(InputError, match="the nonce that was asked for"):
            verify_token(bound.token(), guest=guest, accept_simulated=True, **arguments)


def test_a_verdict_has_no_truth_value_and_says_on_one_line_what_it_is(bound: Bound) -> None:
    guest = bound.verified(bound.guest()).guest
    assert repr(guest) == f"<GuestAppraisal {bound.cpu.provider}, key and evidence: trusted>"
    with pytest.raises(TypeError, match="trusted"):
        bool(guest)
    bad = bound.verified(lying("guest:debug")(bound))
    assert "not trusted, " in repr(bad.guest)
    with pytest.raises(NotTrustedError, match="closed to its host"):
        bad.require()


@pytest.mark.parametrize("change", [{"quote": "text"}, {"at": datetime(2026, 1, 1)}])  # noqa: DTZ001
def test_a_guest_is_made_of_bytes_and_instants_with_a_zone(change: dict[str, Any]) -> None:
    values: dict[str, Any] = {
        "quote": b"", "policy": policy_of(SimulatedGuest()), "recipe": ExpectedReportData(report_data=bytes(64))
    }  # fmt: skip
    with pytest.raises(InputError):
        Guest(**values | change)


@pytest.mark.parametrize(
    ("name", "value"),
    [("policy", b"[tdx]"), ("recipe", None), ("recipe", Challenge), ("collateral", b"{}"), ("anchors", None)],
)
def test_an_argument_of_another_type_is_named_with_what_makes_it(name: str, value: object) -> None:
    bound = Bound.make("tdx")
    with pytest.raises(InputError, match=f"the {name} of a guest cannot be") as caught:
        replace(bound.guest(), **{name: value})
    assert caught.value.hint.startswith("nvattest.")


def test_the_makers_roots_are_short_to_look_at() -> None:
    assert repr(CPU_ANCHORS) == "<CpuAnchors Intel and AMD>"


def test_a_panic_of_the_library_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    import dcap_qvl

    class PanicException(BaseException):
        pass

    class Verifier:
        def __init__(self, *_: object) -> None:
            raise PanicException

    cpu = SimulatedGuest("tdx")
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy_of(cpu), recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    monkeypatch.setattr(dcap_qvl, "QuoteVerifier", Verifier)
    appraisal = guest.appraise(DEVICES, cpu.clock)
    assert refusing(appraisal) == {"quote-signature"}
    assert "gave up" in detail_of(appraisal, "quote-signature")


# --- the attack table ---------------------------------------------------------------------------------------------------


def swap_quote(bound: Bound) -> Guest:
    """The quote of another guest, bound to its own run."""
    other = Bound.make(bound.cpu.kind, seed=7)
    return bound.guest(quote=other.quote, anchors=other.cpu.anchors(), collateral=other.cpu.collateral())


def swap_cpu(bound: Bound) -> Guest:
    """Another guest's CPU quotes our report data: other measurements."""
    other = SimulatedGuest(bound.cpu.kind, lies=["guest:measurement"])
    digest = evidence_digest_of([(item.report, item.certificate_chain) for item in bound.evidence])
    covered = report_data(bound.challenge, bound.key.public.thumbprint_bytes, digest)
    return bound.guest(quote=other.quote(covered), anchors=other.anchors(), collateral=other.collateral())


def replay(bound: Bound) -> Guest:
    """The quote of an earlier run with another challenge and key."""
    return bound.guest(quote=Bound.make(bound.cpu.kind, challenge=OTHER).quote)


def other_challenge(bound: Bound) -> Guest:
    return bound.guest(recipe=Challenge(challenge=OTHER))


def other_key(bound: Bound) -> Guest:
    """The caller expects another key than the one that signs the token, and the quote covers that other key."""
    thumbprint = SigningKey.generate().public.thumbprint_bytes
    digest = evidence_digest_of([(item.report, item.certificate_chain) for item in bound.evidence])
    covered = report_data(bound.challenge, thumbprint, digest)
    recipe = Challenge(challenge=bound.challenge, key_thumbprint=thumbprint)
    return bound.guest(quote=bound.cpu.quote(covered), recipe=recipe)


def other_evidence(bound: Bound) -> Guest:
    """The quote covers other evidence than the token is about."""
    others = Platform.build("hopper-1", seed=3).evidence(bound.nonce)
    digest = evidence_digest_of([(item.report, item.certificate_chain) for item in others])
    covered = report_data(bound.challenge, bound.key.public.thumbprint_bytes, digest)
    return bound.guest(quote=bound.cpu.quote(covered))


def lying(*lies: str) -> Callable[[Bound], Guest]:
    def make(bound: Bound) -> Guest:
        told = SimulatedGuest(bound.cpu.kind, lies=lies)
        digest = evidence_digest_of([(item.report, item.certificate_chain) for item in bound.evidence])
        covered = report_data(bound.challenge, bound.key.public.thumbprint_bytes, digest)
        quote = json.dumps(dump_quote(told.take_quote(covered))).encode()
        return bound.guest(quote=quote, collateral=told.collateral())

    return make


ATTACKS: dict[str, tuple[Callable[[Bound], Guest], set[str]]] = {
    "the quote of another guest": (swap_quote, {"guest-measurements", "guest-binding"}),
    "another guest's quote over our report data": (swap_cpu, {"guest-measurements"}),
    "a replayed quote": (replay, {"guest-binding"}),
    "another challenge": (other_challenge, {"guest-binding", "guest-nonce"}),
    "another key": (other_key, {"guest-key", "guest-nonce"}),
    "other evidence": (other_evidence, {"guest-binding"}),
    "a debug guest": (lying("guest:debug"), {"guest-state"}),
    "a migratable guest": (lying("guest:migratable"), {"guest-state"}),
    "a revoked platform": (lying("guest:revoked=1"), {"quote-revocation"}),
    "expired collateral": (lying("guest:stale"), {"quote-collateral"}),
    "another root": (lying("guest:other-root"), {"quote-chain"}),
    "another key under the quote": (lying("guest:wrong-key"), {"quote-signature"}),
    "a changed signature": (lying("guest:signature"), {"quote-signature"}),
    "a truncated quote": (lying("guest:truncate=1"), {"quote-format"}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_refused_with_its_reason(bound: Bound, attack: str) -> None:
    make, refused_by = ATTACKS[attack]
    verified = bound.verified(make(bound))
    assert not verified.trusted
    assert verified.overall, "the token itself is good"
    assert refusing(verified.guest) == refused_by
    assert verified.result_code != ResultCode.OK
    for check in verified.guest.failures if verified.guest is not None else ():
        assert check.detail


@pytest.mark.parametrize(
    ("kind", "lie", "refused_by"),
    [
        ("tdx", "guest:out-of-date", {"quote-tcb"}),
        ("snp-genoa", "guest:old-firmware", {"quote-tcb"}),
        ("snp-genoa", "guest:wrong-chip", {"quote-chip"}),
        ("snp-turin", "guest:wrong-chip", {"quote-chip"}),
        ("snp-genoa", "guest:wrong-tcb", {"quote-chip"}),
        ("snp-genoa", "guest:wrong-generation", {"quote-chip", "quote-tcb"}),
        ("snp-genoa", "guest:host-asked", {"guest-state"}),
        ("snp-genoa", "guest:vmpl=1", {"guest-state"}),
        ("snp-genoa", "guest:masked", {"quote-signature"}),
        ("snp-genoa", "guest:unsigned", {"quote-collateral"}),
        ("snp-genoa", "guest:no-crl", {"quote-revocation"}),
        ("snp-genoa", "guest:crl-signature", {"quote-revocation"}),
        ("tdx", "guest:crl-signature", {"quote-revocation"}),
        ("tdx", "guest:sept-ve", {"guest-state"}),
        ("tdx", "guest:register=2", {"guest-measurements"}),
        ("tdx", "guest:other-platform", {"quote-collateral"}),
        ("tdx", "guest:evaluation=17", {"quote-tcb"}),
        ("tdx", "guest:tcb-info-tampered", {"quote-signature"}),
        ("tdx", "guest:qe-signer", {"quote-signature"}),
    ],
)  # fmt: skip
def test_what_only_one_maker_has_is_refused_too(kind: str, lie: str, refused_by: set[str]) -> None:
    bound = Bound.make(kind)
    verified = bound.verified(lying(lie)(bound))
    assert not verified.trusted
    assert refusing(verified.guest) == refused_by


@pytest.mark.parametrize("level", ["Revoked", "unlisted"])
def test_a_level_that_intel_revoked_or_does_not_list_is_not_called_a_changed_quote(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvattest.testing import cpu_intel

    if level == "unlisted":
        # The platform's firmware is below every level of the collateral.
        monkeypatch.setattr(cpu_intel, "_PCE_SVN", cpu_intel._PCE_SVN + 1)
        made = SimulatedGuest("tdx").collateral()
        monkeypatch.undo()
    cpu = SimulatedGuest("tdx", lies=["guest:tcb-status=Revoked"] if level == "Revoked" else [])
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy_of(cpu), recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral() if level == "Revoked" else made, anchors=cpu.anchors(),
    )  # fmt: skip
    appraisal = guest.appraise(DEVICES, cpu.clock)
    assert refusing(appraisal) == {"quote-tcb"}
    assert not appraisal.quote_verified
    check = appraisal.check("quote-tcb")
    assert check is not None
    assert "Intel revoked the TCB level of the platform, or lists none" in check.detail
    assert "changed" not in check.hint


@pytest.mark.parametrize("attribute", [8, 32])
def test_attributes_that_tdx_reserves_are_a_state_and_not_a_changed_quote(
    attribute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvattest.testing import cpu_intel

    monkeypatch.setattr(cpu_intel, "_SEPT_VE_DISABLE", cpu_intel._SEPT_VE_DISABLE | 1 << attribute)
    bound = Bound.make("tdx")
    assert refusing(bound.verified(bound.guest()).guest) == {"guest-state"}


def test_a_nonce_in_the_devices_alone_binds_nothing(bound: Bound) -> None:
    # The guest quotes a challenge, and the devices were asked with a nonce of their own.
    nonce = Nonce(bytes(31) + b"\1")
    platform = bound.platform
    token = issue_token(platform.appraise(nonce), bound.key, now=bound.clock)
    digest = evidence_digest_of([(item.report, item.certificate_chain) for item in platform.evidence(nonce)])
    covered = report_data(bound.challenge, bound.key.public.thumbprint_bytes, digest)
    verified = bound.verified(bound.guest(quote=bound.cpu.quote(covered)), token=token, nonce=nonce)
    assert not verified.trusted
    assert refusing(verified.guest) == {"guest-nonce"}


def test_devices_that_are_not_trusted_make_the_verdict_bad(bound: Bound) -> None:
    platform = Platform.build("hopper-1", lies=["gpu0:measurement=9"])
    evidence = platform.evidence(bound.nonce)
    token = issue_token(platform.appraise(bound.nonce), bound.key, now=bound.clock)
    digest = evidence_digest_of([(item.report, item.certificate_chain) for item in evidence])
    covered = report_data(bound.challenge, bound.key.public.thumbprint_bytes, digest)
    verified = bound.verified(bound.guest(quote=bound.cpu.quote(covered)), token=token)
    assert not verified.trusted
    assert refusing(verified.guest) == {"guest-devices"}
    assert "not trusted" in (verified.guest.sentence if verified.guest is not None else "")


def test_a_token_without_an_evidence_digest_cannot_be_bound(bound: Bound) -> None:
    devices = DeviceSide(
        trusted=True, number=1, nonce=bound.nonce.value, digest=None, key=bound.key.public.thumbprint_bytes,
        identities=("1",),
    )  # fmt: skip
    appraisal = bound.guest().appraise(devices, bound.clock)
    assert refusing(appraisal) == {"guest-binding"}
    assert "evidence digest" in detail_of(appraisal, "guest-binding")
    assert appraisal.strength is Strength.NOTHING


def test_evidence_without_the_thumbprint_of_the_key_cannot_be_bound(bound: Bound) -> None:
    devices = DeviceSide(trusted=True, number=1, nonce=bound.nonce.value, digest=bytes(48), key=None, identities=("1",))
    assert refusing(bound.guest().appraise(devices, bound.clock)) == {"guest-binding"}


@pytest.mark.parametrize("good", [True, False])
def test_evidence_that_the_quote_covers_answers_the_nonce_of_the_devices(bound: Bound, good: bool) -> None:
    class Covering:
        name = "covering"

        def demand(self, devices: DeviceSide) -> Demand:
            covered = parse_quote(read_quote_file(bound.quote).quote).report_data
            text = json.dumps(dump_evidence(bound.evidence)).encode()
            return Demand(covered, None, Strength.KEY_AND_EVIDENCE, evidence=(text,))

    ueids = tuple(identity_of(parse_pem_chain(item.certificate_chain)).ueid for item in bound.evidence)
    nonce = bound.nonce.value if good else bytes(32)
    devices = DeviceSide(trusted=True, number=1, nonce=nonce, digest=None, key=None, identities=ueids)
    appraisal = bound.guest(recipe=Covering()).appraise(devices, bound.clock)
    assert refusing(appraisal) == (set() if good else {"guest-devices"})
    if not good:
        assert "answers another nonce" in detail_of(appraisal, "guest-devices")


def test_a_demand_that_the_quote_does_not_meet_ties_nothing(bound: Bound) -> None:
    thumbprint = bound.key.public.thumbprint_bytes
    devices = DeviceSide(
        trusted=True, number=1, nonce=bound.nonce.value, digest=bytes(48), key=thumbprint, identities=("1",)
    )
    appraisal = bound.guest().appraise(devices, bound.clock)
    assert refusing(appraisal) == {"guest-binding"}
    assert (appraisal.strength, appraisal.key) == (Strength.NOTHING, None)


@pytest.mark.parametrize(
    ("change", "refused_by"),
    [({"number": 0}, "guest-devices"), ({"trusted": False}, "guest-devices"), ({"nonce": None}, "guest-nonce")],
)
def test_what_is_not_known_of_the_devices_is_no_success(change: dict[str, Any], refused_by: str) -> None:
    cpu = SimulatedGuest("snp-genoa")
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy_of(cpu), recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    assert refusing(guest.appraise(DEVICES._replace(**change), cpu.clock)) == {refused_by}


# --- the policy ---------------------------------------------------------------------------------------------------------

ZEROS = "0" * 96


@pytest.mark.parametrize(
    ("kind", "change", "refused_by"),
    [
        ("tdx", {"mrtd": (ZEROS,)}, "guest-measurements"),
        ("tdx", {"rtmr0": (ZEROS,)}, "guest-measurements"),
        ("tdx", {"rtmr3": (ZEROS,)}, "guest-measurements"),
        ("tdx", {"mr_config_id": ("1" * 96,)}, "guest-measurements"),
        ("tdx", {"mr_seam": ("1" * 96,)}, "guest-measurements"),
        ("tdx", {"tcb_status": ("OutOfDate",)}, "quote-tcb"),
        ("tdx", {"minimum_tcb_evaluation": 99}, "quote-tcb"),
        ("snp-genoa", {"measurement": (ZEROS,)}, "guest-measurements"),
        ("snp-genoa", {"host_data": ("1" * 64,)}, "guest-measurements"),
        ("snp-genoa", {"family_id": ("1" * 32,)}, "guest-measurements"),
        ("snp-genoa", {"image_id": ("1" * 32,)}, "guest-measurements"),
        ("snp-genoa", {"id_key_digest": ("1" * 96,)}, "guest-measurements"),
        ("snp-genoa", {"author_key_digest": ("1" * 96,)}, "guest-measurements"),
        ("snp-genoa", {"chip_id": ("1" * 128,)}, "guest-measurements"),
        ("snp-genoa", {"endorsement": ("vlek",)}, "quote-chain"),
        ("snp-milan-vlek", {"csp_id": ("CN=another",)}, "quote-chain"),
        ("snp-genoa", {"minimum_guest_svn": 9}, "guest-state"),
        ("snp-genoa", {"minimum_abi": "1.52"}, "guest-state"),
        ("snp-genoa", {"smt": "forbidden"}, "guest-state"),
        ("snp-genoa", {"minimum_tcb": {}}, "quote-tcb"),
        ("snp-genoa", {"minimum_tcb": {"siena": TcbFloor()}}, "quote-tcb"),
        ("snp-genoa", {"minimum_tcb": {"genoa": TcbFloor(boot_loader=11)}}, "quote-tcb"),
        ("snp-genoa", {"minimum_tcb": {"genoa": TcbFloor(tee=1)}}, "quote-tcb"),
        ("snp-genoa", {"minimum_tcb": {"genoa": TcbFloor(snp=24)}}, "quote-tcb"),
        ("snp-genoa", {"minimum_tcb": {"genoa": TcbFloor(microcode=85)}}, "quote-tcb"),
        ("snp-siena", {"minimum_tcb": {"genoa": TcbFloor()}}, "quote-tcb"),
        ("snp-turin", {"minimum_tcb": {"turin": TcbFloor(fmc=2)}}, "quote-tcb"),
    ],
)
def test_each_demand_refuses_a_guest_that_does_not_meet_it(kind: str, change: dict[str, Any], refused_by: str) -> None:
    cpu = SimulatedGuest(kind)
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy_of(cpu, **change), recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    appraisal = guest.appraise(DEVICES, cpu.clock)
    assert not appraisal.trusted
    assert refusing(appraisal) == {refused_by}
    check = appraisal.check(refused_by)
    assert check is not None
    assert check.expected
    assert check.found


@pytest.mark.parametrize(
    ("kind", "lie", "change", "weakening"),
    [
        ("tdx", "guest:measurement", {"mrtd": (), "measurements": "any"}, "any guest"),
        ("snp-genoa", "guest:measurement", {"measurement": (), "measurements": "any"}, "any guest"),
        ("snp-genoa", "guest:vmpl=2", {"maximum_vmpl": 2}, "snp.maximum_vmpl"),
        ("snp-genoa", "guest:migratable", {"migration": True}, "snp.migration"),
        ("snp-genoa", "guest:no-crl", {"crl": "if-present"}, "snp.crl"),
        ("tdx", "guest:evaluation=17", {"minimum_tcb_evaluation": 17}, "tdx.minimum_tcb_evaluation"),
    ],
)
def test_what_the_policy_allows_is_trusted_and_named_as_a_weakening(
    kind: str, lie: str, change: dict[str, Any], weakening: str
) -> None:
    cpu = SimulatedGuest(kind, lies=[lie])
    policy = policy_of(SimulatedGuest(kind), **change)
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy, recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    appraisal = guest.appraise(DEVICES, cpu.clock)
    assert appraisal.failures == ()
    assert weakening in appraisal.weakened
    if weakening == "any guest":
        assert "weakened: any guest" in detail_of(appraisal, "guest-measurements")


def test_a_launch_below_the_floor_is_a_warning() -> None:
    cpu = SimulatedGuest("snp-genoa")
    report = bytearray(cpu.quote(bytes(64)))
    assert report[0x1F0:0x1F8] == report[0x180:0x188], "the simulation launches at what it reports"


def test_debug_is_accepted_by_no_policy() -> None:
    assert not [
        name for demands in (TdxDemands, SnpDemands) for name in demands.__dataclass_fields__ if "debug" in name
    ]


# --- facts, order and exceptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["a changed signature", "another root", "expired collateral", "a truncated quote"])
def test_nothing_in_a_quote_is_a_fact_before_its_signature_is_verified(bound: Bound, attack: str) -> None:
    verified = bound.verified(ATTACKS[attack][0](bound))
    guest = verified.guest
    assert guest is not None
    assert guest.facts is None
    assert not guest.quote_verified
    assert "Nothing is proven about the guest" in guest.sentence
    said = json.dumps(appraisal_json(guest))
    assert bound.cpu.measurement.hex() not in said.replace(json.dumps(appraisal_json(guest)["policy"]), "")
    assert [check.id for check in guest.checks] == list(REQUIRED_GUEST)
    measured = guest.check("guest-measurements")
    assert measured is not None
    assert measured.outcome is Outcome.SKIPPED


def appraisal_json(guest: GuestAppraisal) -> dict[str, Any]:
    from nvattest.appraisal.results import guest_to_json

    return guest_to_json(guest)


@pytest.mark.parametrize(
    ("quote", "says"),
    [(b"", "truncated"), (b"HCLA" + bytes(2600), "paravisor"), (b"{}", "not a file"), (bytes(1184), "version 0")],
)
def test_what_is_no_quote_fails_the_first_step_and_skips_the_rest(quote: bytes, says: str) -> None:
    cpu = SimulatedGuest("snp-genoa")
    guest = Guest(quote=quote, policy=policy_of(cpu), recipe=ExpectedReportData(report_data=bytes(64)))
    appraisal = guest.appraise(DEVICES, cpu.clock)
    first, *rest = appraisal.checks
    assert (first.id, first.outcome) == ("quote-format", Outcome.FAIL)
    assert says in first.detail or says == "truncated"
    assert {check.outcome for check in rest} == {Outcome.SKIPPED}
    assert appraisal.result_code == ResultCode.EVIDENCE_MALFORMED
    assert appraisal.kind == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_quote_that_the_policy_does_not_name_is_refused(kind: str) -> None:
    cpu, other = SimulatedGuest(kind), SimulatedGuest("tdx" if kind != "tdx" else "snp-genoa")
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy_of(other), recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    assert refusing(guest.appraise(DEVICES, cpu.clock)) == {"quote-format"}


@pytest.mark.parametrize("kind", KINDS)
def test_collateral_of_the_other_maker_or_none_is_named(kind: str) -> None:
    cpu, other = SimulatedGuest(kind), SimulatedGuest("tdx" if kind != "tdx" else "snp-genoa")
    for collateral, says in ((other.collateral(), "other maker"), (None, "")):
        guest = Guest(
            quote=cpu.quote(bytes(64)), policy=policy_of(cpu), recipe=ExpectedReportData(report_data=bytes(64)),
            collateral=collateral, anchors=cpu.anchors(),
        )  # fmt: skip
        appraisal = guest.appraise(DEVICES, cpu.clock)
        assert refusing(appraisal) == {"quote-collateral"}
        check = appraisal.check("quote-collateral")
        assert check is not None
        assert says in check.detail
        assert "bundle fetch --tee-quote" in check.hint


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name == "dcap_qvl":
            raise ImportError(name)
        return real(name, *more, **named)

    cpu = SimulatedGuest("tdx")
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy_of(cpu), recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="dcap-qvl") as caught:
        guest.appraise(DEVICES, cpu.clock)
    assert (caught.value.code, caught.value.hint) == ("tdx-missing", "pip install 'dcap-qvl>=0.7,<0.8' (the extra tdx)")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("version", ["0.3.8", "0.6.2", "0.8.0", "0.70.1"])
def test_another_version_of_the_library_is_not_asked(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import dcap_qvl

    # Before 0.3.9 it took any quoting enclave for Intel's, and its interface is another one in each minor version.
    monkeypatch.setattr(dcap_qvl, "__version__", version)
    cpu = SimulatedGuest("tdx")
    guest = Guest(
        quote=cpu.quote(bytes(64)), policy=policy_of(cpu), recipe=ExpectedReportData(report_data=bytes(64)),
        collateral=cpu.collateral(), anchors=cpu.anchors(),
    )  # fmt: skip
    with pytest.raises(InputError, match=f"here in version {version}") as caught:
        guest.appraise(DEVICES, cpu.clock)
    assert caught.value.code == "tdx-missing"


def test_the_host_s_table_of_certificates_is_taken_with_the_list_that_the_caller_has() -> None:
    bound = Bound.make("snp-genoa")
    whole = bound.cpu.collateral()
    assert isinstance(whole, SnpCollateral)
    assert bound.verified(bound.guest(collateral=SnpCollateral(crls=whole.crls))).trusted
    assert refusing(bound.verified(bound.guest(collateral=None)).guest) == {"quote-revocation"}
    # What the host adds does not hide what the caller has.
    foreign = SimulatedGuest("snp-genoa", seed=5).collateral()
    assert isinstance(foreign, SnpCollateral)
    assert bound.verified(bound.guest(collateral=foreign + SnpCollateral(crls=whole.crls))).trusted


def test_a_list_that_the_root_did_not_sign_does_not_hide_the_one_that_it_did() -> None:
    bound = Bound.make("snp-genoa")
    whole, forged = bound.cpu.collateral(), SimulatedGuest("snp-genoa", lies=["guest:crl-signature"]).collateral()
    assert isinstance(whole, SnpCollateral)
    assert isinstance(forged, SnpCollateral)
    both = SnpCollateral(crls=forged.crls) + whole
    assert bound.verified(bound.guest(collateral=both)).trusted


@pytest.mark.parametrize("lie", ["chain-signature=0", "chain-signature=1", "expired=0", "expired=1", "not-yet-valid=0"])
def test_a_certificate_that_is_forged_or_old_does_not_hide_the_good_one_whoever_gives_it(lie: str) -> None:
    lied, good = Bound.make("snp-genoa", lies=[f"guest:{lie}"]), Bound.make("snp-genoa")
    assert not lied.verified(lied.guest()).trusted
    assert lied.verified(lied.guest(collateral=good.cpu.collateral())).trusted
    assert good.verified(good.guest(collateral=lied.cpu.collateral())).trusted


@pytest.mark.parametrize(
    "blob", [b"\x01" * 24, b"\x01" * 200, "63da758de6644564adc5f4b93be8accd"], ids=["short", "endless", "VCEK"]
)
def test_a_table_of_the_host_s_that_cannot_be_read_does_not_hide_the_caller_s_collateral(blob: bytes | str) -> None:
    if isinstance(blob, str):
        # A table of one entry that is no certificate.
        blob = bytes.fromhex(blob) + (48).to_bytes(4, "little") + (4).to_bytes(4, "little") + bytes(24) + b"none"
    bound = Bound.make("snp-genoa")
    quote = json.loads(bound.quote) | {"auxblob": base64.b64encode(blob).decode()}
    changed = json.dumps(quote).encode()
    whole = bound.cpu.collateral()
    assert isinstance(whole, SnpCollateral)
    assert bound.verified(bound.guest(quote=changed)).trusted
    for part in (None, SnpCollateral(crls=whole.crls)):
        refused = bound.verified(bound.guest(quote=changed, collateral=part)).guest
        assert refusing(refused) == {"quote-collateral"}
        assert refused is not None
        assert "holds no VCEK" not in detail_of(refused, "quote-collateral"), "the table's own fault is named"


def test_a_newer_list_does_not_hide_the_one_that_was_current_at_the_instant() -> None:
    bound = Bound.make("snp-genoa")
    whole, later = bound.cpu.collateral(), SimulatedGuest("snp-genoa", clock=bound.clock + timedelta(days=90))
    newer = later.collateral()
    assert isinstance(whole, SnpCollateral)
    assert isinstance(newer, SnpCollateral)
    assert refusing(bound.verified(bound.guest(collateral=SnpCollateral(crls=newer.crls))).guest) == {
        "quote-collateral"
    }
    assert bound.verified(bound.guest(collateral=SnpCollateral(crls=newer.crls + whole.crls))).trusted


def test_a_newer_list_that_names_nothing_does_not_hide_that_another_revoked_the_issuer() -> None:
    # AMD publishes a list for VCEKs and one for VLEKs, both by the same root.
    bound = Bound.make("snp-genoa")
    whole = bound.cpu.collateral()
    told = SimulatedGuest("snp-genoa", clock=bound.clock - timedelta(days=1), lies=["guest:revoked=1"]).collateral()
    assert isinstance(whole, SnpCollateral)
    assert isinstance(told, SnpCollateral)
    both = whole + SnpCollateral(crls=told.crls)
    assert refusing(bound.verified(bound.guest(collateral=both)).guest) == {"quote-revocation"}


def test_an_instant_of_its_own_judges_the_quote_apart_from_the_token(bound: Bound) -> None:
    late = bound.clock + timedelta(days=400)
    assert refusing(bound.verified(bound.guest(at=late)).guest) >= {"quote-collateral"}
    assert bound.verified(bound.guest(at=bound.clock)).trusted


# --- simulated never passes for real ------------------------------------------------------------------------------------


def test_a_simulated_guest_is_refused_under_the_makers_roots(bound: Bound) -> None:
    assert refusing(bound.verified(bound.guest(anchors=CPU_ANCHORS)).guest) & {"quote-chain", "quote-collateral"}


def test_a_simulated_guest_beside_real_devices_is_refused_unless_accepted(bound: Bound) -> None:
    appraisal = replace(bound.platform.appraise(bound.nonce), simulated=False, anchors="NVIDIA")
    token = issue_token(appraisal, bound.key, now=bound.clock)
    arguments: dict[str, Any] = {"issuer": None, "nonce": bound.nonce, "at": bound.clock, "key": bound.key.public}
    with pytest.raises(TokenError, match="simulated CPUs") as caught:
        verify_token(token, guest=bound.guest(), **arguments)
    assert caught.value.code == "simulated"
    assert verify_token(token, guest=bound.guest(), accept_simulated=True, **arguments).simulated


def test_only_the_makers_own_roots_bear_the_makers_name() -> None:
    with pytest.raises(InputError) as caught:
        CpuAnchors(intel=CPU_ANCHORS.intel, amd={}, label=CPU_ANCHORS.label)
    assert caught.value.code == "anchor"
    root = SimulatedGuest("snp-genoa").anchors().amd["genoa"]
    with pytest.raises(InputError):
        replace(CPU_ANCHORS, amd={**CPU_ANCHORS.amd, "genoa": root})


def test_any_root_that_is_not_the_maker_s_makes_a_verdict_simulated() -> None:
    # A root of any other name than the simulation's: only the makers endorse real CPUs.
    assert not CPU_ANCHORS.simulated
    amd = SimulatedGuest("snp-genoa").anchors().amd["genoa"]
    other = amd._replace(subject="CN=ARK-Genoa,O=Another", name="ARK-Genoa")
    assert CpuAnchors(intel=CPU_ANCHORS.intel, amd={**CPU_ANCHORS.amd, "genoa": other}, label="custom").simulated


def test_anchors_from_pem_take_the_place_of_the_maker_that_their_names_say() -> None:
    from nvattest.testing.certificates import pem

    intel, amd = SimulatedGuest("tdx"), SimulatedGuest("snp-turin")
    anchors = cpu_anchors_from_pem(pem([intel.root]) + pem([amd.root]))
    assert anchors.simulated
    assert anchors.intel.certificate_sha256 == intel.anchors().intel.certificate_sha256
    assert anchors.amd["turin"] == amd.anchors().amd["turin"]
    assert anchors.amd["milan"] == CPU_ANCHORS.amd["milan"]


# --- what is said -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(schema_bytes("appraisal-1.json")))


def with_guest(bound: Bound, guest: Guest | None = None) -> Any:
    recipe = Challenge(challenge=bound.challenge, key_thumbprint=bound.key.public.thumbprint_bytes)
    return verify(
        bound.evidence, collateral=bound.platform.collateral(), nonce=bound.nonce, at=bound.clock,
        anchors=bound.platform.trust_anchors(), guest=guest or bound.guest(recipe=recipe),
    )  # fmt: skip


@pytest.mark.parametrize("attack", [None, *ATTACKS])
def test_an_appraisal_with_a_guest_follows_its_schema_and_reads_back_as_it_was(
    bound: Bound, attack: str | None, schema: jsonschema.Draft202012Validator
) -> None:
    guest = None
    if attack is not None:
        made = ATTACKS[attack][0](bound)
        thumbprint = getattr(made.recipe, "key_thumbprint", b"") or bound.key.public.thumbprint_bytes
        challenge = getattr(made.recipe, "challenge", CHALLENGE)
        guest = replace(made, recipe=Challenge(challenge=challenge, key_thumbprint=thumbprint))
    appraisal = with_guest(bound, guest)
    document = json.loads(json.dumps(appraisal_to_json(appraisal)))
    schema.validate(document)
    view = read_appraisal(document)
    # Beside the evidence itself there is no token whose key could differ.
    trusted = attack is None
    assert (view.trusted, appraisal.trusted) == (trusted, trusted) or attack == "another key"
    assert view.guest is not None
    assert view.guest.sentence == appraisal.guest.sentence
    assert view == view_of(appraisal)


def test_a_file_cannot_claim_more_of_a_guest_than_its_checks_say(
    bound: Bound, schema: jsonschema.Draft202012Validator
) -> None:
    document = json.loads(json.dumps(appraisal_to_json(with_guest(bound))))
    for spoil in (
        lambda guest: guest["checks"].pop(),
        lambda guest: guest.update(trusted=False),
        lambda guest: guest["checks"][4].update(outcome="skipped"),
        lambda guest: guest.update(checks=[]),
    ):
        changed = json.loads(json.dumps(document))
        spoil(changed["guest"])
        assert not read_appraisal(changed).trusted
    document["guest"]["trusted"] = False
    assert not schema.is_valid(document), "a trusted platform has a trusted guest"


@pytest.mark.parametrize("lie", [None, "a changed signature", "a debug guest"])
def test_a_file_s_words_about_a_guest_are_not_shown_against_its_checks(bound: Bound, lie: str | None) -> None:
    recipe = Challenge(challenge=bound.challenge, key_thumbprint=bound.key.public.thumbprint_bytes)
    good = json.loads(json.dumps(appraisal_to_json(with_guest(bound))))["guest"]
    made = {
        None: lambda: bound.guest(anchors=CPU_ANCHORS),
        "a changed signature": lambda: ATTACKS["a changed signature"][0](bound),
        "a debug guest": lambda: lying("guest:debug")(bound),
    }[lie]()
    document = json.loads(json.dumps(appraisal_to_json(with_guest(bound, replace(made, recipe=recipe)))))
    # The words of a good guest over the checks of a bad one.
    document["guest"] |= {name: value for name, value in good.items() if name != "checks"}
    view = read_appraisal(document)
    assert view.guest is not None
    assert not view.guest.trusted
    assert "your challenge" not in view.guest.sentence
    verified = bound.cpu.registers == () and lie == "a debug guest"
    assert view.guest.quote_signature_verified == verified
    assert bool(view.guest.measurement) == verified
    assert ("Nothing is proven" in view.guest.sentence) != verified


def test_text_story_and_page_show_the_guest_as_the_root_of_the_picture(bound: Bound) -> None:
    pytest.importorskip("jinja2")
    view = view_of(with_guest(bound))
    assert view.guest is not None
    for text in (account(view, Terminal()), story(view, Terminal(width=100)), report_page(view)):
        flat = " ".join(text.split())
        assert "GUEST" in text or "<h2>Guest</h2>" in text
        assert view.guest.strength in flat
        assert "holds key" in flat
    page = report_page(view)
    assert page.index("<h2>Guest</h2>") < page.index("<h2>Platform</h2>")
    assert "Nothing here shows that the devices are plugged into this guest" in page
    # A simulated root is not the maker's pinned one, and the key ends with its certificate, not with its collateral.
    picture = page[page.index("<h2>Guest</h2>") : page.index("<h2>Platform</h2>")]
    assert "root of simulated anchors" in picture
    assert "pinned root" not in picture
    assert f"until {view.guest.not_after[:10]}" in picture
    assert view.guest.not_after[:10] != view.guest.good_until[:10]


def test_the_page_of_a_refused_guest_says_which_part_failed(bound: Bound) -> None:
    pytest.importorskip("jinja2")
    view = view_of(with_guest(bound, lying("guest:measurement")(bound)))
    page = report_page(view)
    assert "guest-measurements" in page
    assert not view.trusted
    assert "NOT TRUSTED" in account(view, Terminal())


def test_an_ear_has_a_submodule_of_the_cpu_whose_status_follows_its_checks(bound: Bound) -> None:
    good = issue_token(with_guest(bound), bound.key, ear=True, now=bound.clock)
    token = verify_token(
        good, issuer=None, nonce=bound.nonce, at=bound.clock, key=bound.key.public, accept_simulated=True
    )
    # Simulated is at most a warning, and so the token as a whole is not affirming.
    assert token.statuses["cpu0"] == "warning"
    cpu = token.payload["submods"]["cpu0"]  # type: ignore[index]
    said = cpu["ear.veraison.annotated-evidence"][bound.cpu.provider]
    assert said["measurement"] == bound.cpu.measurement.hex()
    assert (said["strength"], said["anchors"]) == ("key and evidence", "simulated")
    assert token.payload["nvattest"]["guest"] == {  # type: ignore[index]
        "trusted": True, "anchors": "simulated", "strength": "key and evidence"
    }  # fmt: skip
    assert cpu["ear.appraisal-policy-id"].startswith("urn:nvattest:cpu-policy:sha256:")
    jsonschema.Draft202012Validator(json.loads(schema_bytes("token-ear-1.json"))).validate(token.payload)
    for attack, vector in (("a changed signature", 99), ("another guest's quote over our report data", 96)):
        recipe = Challenge(challenge=bound.challenge, key_thumbprint=bound.key.public.thumbprint_bytes)
        bad = with_guest(bound, replace(ATTACKS[attack][0](bound), recipe=recipe))
        made = issue_token(bad, bound.key, ear=True, now=bound.clock)
        refused = verify_token(
            made, issuer=None, nonce=bound.nonce, at=bound.clock, key=bound.key.public, accept_simulated=True
        )
        assert not refused.overall
        assert refused.statuses["cpu0"] == "contraindicated"
        executables = refused.payload["submods"]["cpu0"]["ear.trustworthiness-vector"]["executables"]  # type: ignore[index]
        assert executables == vector


@pytest.mark.parametrize("ear", [True, False])
def test_a_token_about_a_guest_under_other_roots_says_so_and_is_refused_where_that_is_asked_for(
    bound: Bound, ear: bool
) -> None:
    # Roots that are neither the makers' nor simulated: only their label tells them from the makers'.
    made = with_guest(bound)
    assert made.guest is not None
    real = replace(made, simulated=False, anchors="NVIDIA")
    arguments: dict[str, Any] = {"issuer": None, "nonce": bound.nonce, "at": bound.clock, "key": bound.key.public}
    for label, weakened in (("custom", ("guest-anchors",)), (CPU_ANCHORS.label, ())):
        named = replace(real, guest=replace(made.guest, simulated=False, anchors=label))
        token = issue_token(named, bound.key, ear=ear, now=bound.clock)
        verified = verify_token(token, **arguments)
        assert verified.weakened == weakened
        assert verified.trusted == (not (ear and weakened))
        if weakened:
            with pytest.raises(TokenError) as caught:
                verify_token(token, refuse_weakened=True, **arguments)
            assert caught.value.code == "weakened"
        else:
            verify_token(token, refuse_weakened=True, **arguments)


def test_a_guest_judged_at_another_time_makes_a_token_of_another_time(bound: Bound) -> None:
    recipe = Challenge(challenge=bound.challenge, key_thumbprint=bound.key.public.thumbprint_bytes)
    made = with_guest(bound, bound.guest(recipe=recipe, at=bound.clock - timedelta(hours=2)))
    assert made.trusted
    token = issue_token(made, bound.key, now=bound.clock)
    assert "judged-at-another-time" in bound.verified(bound.guest(), token=token).weakened


def test_a_detached_token_of_a_platform_with_a_bad_guest_is_not_good(bound: Bound) -> None:
    recipe = Challenge(challenge=bound.challenge, key_thumbprint=bound.key.public.thumbprint_bytes)
    bad = with_guest(bound, replace(lying("guest:debug")(bound), recipe=recipe))
    token = issue_token(bad, bound.key, now=bound.clock)
    assert not bound.verified(bound.guest(), token=token).overall


@pytest.mark.parametrize("name", REQUIRED_GUEST)
def test_each_check_of_the_guest_has_its_step_in_the_story(name: str) -> None:
    assert CHECKS[name].step == 26 + REQUIRED_GUEST.index(name)


def test_snp_collateral_is_bounded_and_each_part_is_taken_for_what_it_is() -> None:
    collateral = SimulatedGuest("snp-genoa").collateral()
    assert isinstance(collateral, SnpCollateral)
    again = snp_collateral([*collateral.crls, *collateral.certificates, *collateral.certificates])
    assert again == SnpCollateral(certificates=collateral.certificates, crls=collateral.crls)
