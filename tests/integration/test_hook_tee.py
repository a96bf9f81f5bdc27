"""``[tee] required``: no quote, no ready GPUs; the quote covers the published token's key and evidence, and is shown."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import jsonschema
import pytest

from nvattest import Challenge, CpuPolicy, Guest, Nonce, verify_token
from nvattest._package import schema_bytes
from nvattest.appraisal.guest import SnpDemands, TcbFloor
from nvattest.testing.cpu import SimulatedGuest
from nvattest.token.binding import derive_device_nonce
from nvattest.token.jose import PublicKey

from .hook_world import HookWorld, NewWorld

CPU = """\
from datetime import datetime, timezone
from nvattest.tee import tsm
from nvattest.testing.cpu import SimulatedGuest
cpu = SimulatedGuest("snp-genoa", clock=datetime.now(timezone.utc))
tsm.take_quote = lambda data, **named: cpu.take_quote(data)
"""


@pytest.fixture
def guest(world: NewWorld) -> HookWorld:
    made = world()
    made.configure(tee={"required": True})
    return made


def with_a_cpu(guest: HookWorld) -> None:
    """In the place of the kernel a simulated CPU answers the hook."""
    guest.before_main(CPU)


def test_without_a_quote_the_gpus_stay_not_ready_and_the_reason_names_it(guest: HookWorld) -> None:
    guest.run()
    assert guest.ready == 0
    assert guest.state["reason"]["code"] == "tsm-missing"
    assert guest.state["cause"] == "collection"
    assert guest.state["tee"] is None
    assert not guest.token.exists()
    assert not guest.file("run/nvattest/quote.json").exists()


def test_where_none_is_required_none_is_taken(world: NewWorld) -> None:
    guest = world()
    assert guest.run().status == 0
    assert guest.ready == 1
    assert guest.state["tee"] is None
    assert not guest.file("run/nvattest/quote.json").exists()


def test_the_quote_is_on_disk_before_ready_and_a_relying_party_verifies_all_of_it(guest: HookWorld) -> None:
    with_a_cpu(guest)
    ended = guest.run()
    assert ended.status == 0, ended.stderr
    assert guest.ready == 1
    folder = guest.file("run/nvattest")
    quote = (folder / "quote.json").read_bytes()
    challenge = bytes.fromhex(json.loads(quote)["challenge"])
    assert guest.state["tee"]["challenge"] == challenge.hex()
    assert guest.state["tee"]["provider"] == "sev_guest"
    jwks = json.loads((folder / "jwks.json").read_text())
    key = PublicKey.from_jwk(jwks["keys"][0])
    cpu = SimulatedGuest("snp-genoa", clock=datetime.now(timezone.utc))
    floor = {"genoa": TcbFloor(snp=23)}
    verified = verify_token(
        guest.token.read_text(), issuer=None, nonce=derive_device_nonce(challenge, key.thumbprint_bytes),
        at=datetime.now(timezone.utc), jwks=jwks, accept_simulated=True,
        guest=Guest(
            quote=quote, policy=CpuPolicy(snp=SnpDemands(measurement=(cpu.measurement.hex(),), minimum_tcb=floor)),
            recipe=Challenge(challenge=challenge), collateral=cpu.collateral(), anchors=cpu.anchors(),
        ),
    )  # fmt: skip
    assert verified.trusted
    assert verified.guest is not None
    assert verified.guest.key == key.thumbprint


def test_status_shows_the_binding_and_judges_nothing(guest: HookWorld) -> None:
    with_a_cpu(guest)
    guest.run()
    said = guest.run("status").stdout
    assert "Binding: a quote of sev_guest over the token's key and the evidence, in /run/nvattest/quote.json" in said
    document = json.loads(guest.run("status", "-f", "json").stdout)
    jsonschema.Draft202012Validator(json.loads(schema_bytes("hook-status-1.json"))).validate(document)
    jsonschema.Draft202012Validator(json.loads(schema_bytes("hook-state-1.json"))).validate(guest.state)
    quote = json.loads(guest.file("run/nvattest/quote.json").read_text())
    jsonschema.Draft202012Validator(json.loads(schema_bytes("tee-quote-1.json"))).validate(quote)
    assert document["tee"] == guest.state["tee"]
    assert "trusted" not in document["tee"]


def test_a_later_failure_takes_the_quote_away_with_the_token(guest: HookWorld) -> None:
    with_a_cpu(guest)
    guest.run()
    assert guest.file("run/nvattest/quote.json").exists()
    guest.configure(expected_gpus=7)
    guest.run()
    assert guest.ready == 0
    assert not guest.token.exists()
    assert not guest.file("run/nvattest/quote.json").exists()
    assert guest.state["tee"] is None or guest.state["verdict"] != "trusted"


def test_every_run_has_a_key_and_a_challenge_of_its_own(guest: HookWorld) -> None:
    with_a_cpu(guest)
    guest.run()
    first = guest.state["tee"]["challenge"]
    guest.configure(reuse={"max_age": 0})
    guest.run()
    assert guest.state["tee"]["challenge"] != first
    assert Nonce.from_hex(first)


def test_the_folder_of_the_kernel_is_looked_for_below_the_root_of_the_guest(guest: HookWorld) -> None:
    Path(guest.root, "sys/kernel/config/tsm/report").mkdir(parents=True)
    guest.run()
    assert guest.ready == 0
    assert guest.state["reason"]["code"].startswith("tsm-")
    assert guest.state["reason"]["code"] != "tsm-missing" or "nvattest-" in guest.state["reason"]["message"]
