"""``nvattest policy check``: what it says and with which status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.cli import run
from nvattest.policy.evidence_policy import dump_evidence_policy

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "policies"


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    status = run(["-f", "json", "policy", "check", *arguments])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*.json")) + sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.name
)
def test_an_example_is_explained(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = ask(capsys, str(path))
    assert status == 0
    assert said["kind"] == (
        "cpu" if path.name == "cpu.toml" else "evidence" if path.suffix == ".toml" else "relying-party"
    )
    assert said["demands"]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


NVIDIA_JSON = (
    '{"version":"4.0","authorization-rules":{"type":"JWT","overall-claims":{"a":1},"detached-claims":{"b":2}}}'
)
EVIDENCE_TOML = 'format = "nvattest-evidence-policy"\nversion = 1\nexpected_gpus = 8\n'
REGO = "package policy\nnv_match { true }\n"


@pytest.mark.parametrize(
    ("name", "text", "kind", "language"),
    [
        ("p.toml", EVIDENCE_TOML, "evidence", None),
        ("p", EVIDENCE_TOML, "evidence", None),
        # A table may be called as a Rego file begins.
        ("p", "# package policy\n" + EVIDENCE_TOML, "evidence", None),
        ("p.json", dump_evidence_policy(EvidencePolicy(expected_gpus=8), form="json"), "evidence", None),
        ("p.txt", "\n " + dump_evidence_policy(EvidencePolicy(expected_gpus=8), form="json"), "evidence", None),
        ("p.json", NVIDIA_JSON, "relying-party", "nvidia-json"),
        ("p", " \n" + NVIDIA_JSON, "relying-party", "nvidia-json"),
        ("p.rego", REGO, "relying-party", "rego"),
        ("p", "# a comment\n\n#\n" + REGO, "relying-party", "rego"),
    ],
)
def test_a_policy_of_either_kind_is_known_by_what_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, kind: str, language: str | None
) -> None:
    if language == "rego":
        pytest.importorskip("regopy")
    status, said = ask(capsys, write(tmp_path, name, text))
    assert (status, said["kind"], said.get("language")) == (0, kind, language)


def test_a_policy_is_tried_on_saved_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("regopy")
    policy = write(tmp_path, "p.txt", '# c\npackage policy\nnv_match { input[0].measres == "success" }')
    good = write(tmp_path, "good.json", '{"claims": [{"measres": "success"}], "detached_eat": {}}')
    bad = write(tmp_path, "bad.json", '[{"measres": "fail"}]')
    status, said = ask(capsys, policy, "--claims", good)
    assert (status, said["matched"], said["language"]) == (0, True, "rego")
    status, said = ask(capsys, policy, "--claims", bad)
    assert (status, said["matched"], said["result_code"]) == (11, False, 11)
    assert said["reasons"]


def test_overall_claims_come_from_the_token_in_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = write(
        tmp_path,
        "p.json",
        '{"version":"4.0","authorization-rules":{"type":"JWT","overall-claims":{"a":1},"detached-claims":{"b":2}}}',
    )
    # {"a": 1} as the payload of a JWT.
    claims = write(tmp_path, "c.json", '{"claims": [{"b": 2}], "detached_eat": [["JWT", "e30.eyJhIjogMX0.x"], {}]}')
    assert ask(capsys, policy, "--claims", claims)[0] == 0
    loose = write(tmp_path, "l.json", '{"claims": [{"b": 2}], "detached_eat": [["JWT", "e30.eyJhIjogMX1.x"], {}]}')
    assert ask(capsys, policy, "--claims", loose)[1]["error"]["code"] == "malformed"
    claims = write(tmp_path, "d.json", '{"claims": [{"b": 2}], "overall": {"a": 2}}')
    assert ask(capsys, policy, "--claims", claims)[0] == 11
    claims = write(tmp_path, "e.json", '{"claims": [{"b": 2}]}')
    assert ask(capsys, policy, "--claims", claims)[0] == 11


@pytest.mark.parametrize(
    ("name", "text", "status", "code"),
    [
        ("p.toml", "revocaton = 1", 301 % 256, "policy-key"),
        ("p.toml", "= 1", 301 % 256, "toml"),
        ("p.json", '{"authorization-rules": {}}', 301 % 256, "policy-key"),
        ("p.rego", "package other", 301 % 256, "policy-package"),
    ],
)
def test_a_mistake_is_said_with_its_code(
    name: str, text: str, status: int, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = ask(capsys, write(tmp_path, name, text))
    assert found == status
    assert said["error"]["code"] == code  # type: ignore[index]


def test_an_evidence_policy_is_not_tried_on_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = write(tmp_path, "c.json", "[]")
    status, said = ask(capsys, str(EXAMPLES / "evidence.toml"), "--claims", claims)
    assert status == 4
    assert said["error"]["code"] == "policy-kind"  # type: ignore[index]


def test_weakenings_are_shouted_in_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "check", write(tmp_path, "p.toml", "allow_debug = true\n")]) == 0
    assert "WEAKER than the default: allow_debug" in capsys.readouterr().out
