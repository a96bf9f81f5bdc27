"""An appraisal as JSON follows ``schemas/appraisal-1.json``, which refuses what no appraisal can say."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from nvattest._documents import dump_json
from nvattest._package import schema_bytes
from nvattest.appraisal.inputs import Collateral, EvidencePolicy
from nvattest.appraisal.results import appraisal_to_json


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    document = json.loads(schema_bytes("appraisal-1.json"))
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


NODES = [
    ("hopper-1",),
    ("hopper-8-ppcie",),
    ("blackwell-1",),
    ("blackwell-8-mpt",),
    ("hopper-1", "gpu0:chain-format"),
    ("hopper-1", "gpu0:truncate=100"),
    ("hopper-1", "gpu0:chain-format", "gpu0:truncate=4000"),
    ("hopper-1", "gpu0:chain-missing=1"),
    ("hopper-1", "gpu0:expired=1", "driver-rim:not-yet-valid=0"),
    ("hopper-1", "gpu0:revoked=1", "driver-rim:hold=0", "vbios-rim:unknown=1"),
    ("hopper-1", "gpu0:ocsp-garbage=1", "gpu0:stale=2", "gpu0:ocsp-status=3,tryLater"),
    ("hopper-1", "gpu0:measurement=9", "gpu0:measurement-missing=21", "vbios-rim:conflict=22"),
    ("hopper-1", "driver-rim:missing", "vbios-rim:xml=dtd"),
    ("hopper-1", "driver-rim:wrong-version", "vbios-rim:tampered=1"),
    ("blackwell-8-mpt", "vbios-rim:min-svn=9", "gpu0:svn=1", "gpu1:debug", "gpu2:feature=9"),
    ("hopper-8-ppcie", "gpu0:duplicate=gpu1", "switch0:topology=foreign"),
]


@pytest.mark.parametrize("arguments", NODES, ids=" ".join)
def test_what_we_write_follows_the_schema(node, schema: jsonschema.Draft202012Validator, arguments: tuple) -> None:
    world = node(*arguments)
    weak = EvidencePolicy(accept_unverified_nonce=True, accept_stale_ocsp=True, allow_debug=True)
    for appraisal in (
        world.appraise(),
        world.appraise(weak, nonce=None),
        world.appraise(collateral=Collateral()),
        world.appraise(evidence=()),
    ):
        document = appraisal_to_json(appraisal)
        schema.validate(json.loads(dump_json(document)))
        assert document["trusted"] is appraisal.trusted
        assert (document["result_code"] == 0) is appraisal.trusted
        assert document["weakened"] == list(appraisal.weakened)


BREAK = {
    "a member too many": lambda a: a.update(more=1),
    "no verdict": lambda a: a.pop("trusted"),
    "another format": lambda a: a.update(format="x"),
    "another version": lambda a: a.update(version=2),
    "trusted with a code": lambda a: a.update(result_code=12),
    "not trusted with code 0": lambda a: a.update(trusted=False),
    "trusted without a device": lambda a: a.update(devices=[]),
    "trusted with an untrusted device": lambda a: a["devices"][0].update(trusted=False),
    "a failed check that is acceptable": lambda a: a["devices"][0]["checks"][0].update(outcome="fail"),
    "a skipped check that nothing tolerates": lambda a: a["devices"][0]["checks"][0].update(outcome="skipped"),
    "a passed check with a code": lambda a: a["devices"][0]["checks"][0].update(code=12),
    "a passed check that is not acceptable": lambda a: a["devices"][0]["checks"][0].update(acceptable=False),
    "a device without checks": lambda a: a["devices"][0].update(checks=[]),
    "an outcome that does not exist": lambda a: a["checks"][0].update(outcome="maybe"),
    "a step that does not exist": lambda a: a["checks"][0].update(step=39),
    "a nonce that is too short": lambda a: a.update(nonce="00"),
    "a time without a zone": lambda a: a["at"].update(rim="2026-01-01T00:00:00"),
    "a policy without a weakening": lambda a: a["policy"].pop("allow_debug"),
    "an upper-case digest": lambda a: a["devices"][0].update(report_sha256="A" * 64),
}


@pytest.mark.parametrize("name", BREAK)
def test_what_no_appraisal_can_say_is_refused(node, schema: jsonschema.Draft202012Validator, name: str) -> None:
    document = copy.deepcopy(json.loads(dump_json(appraisal_to_json(node("hopper-1").appraise()))))
    schema.validate(document)
    BREAK[name](document)
    assert not schema.is_valid(document)
