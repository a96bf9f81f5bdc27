"""The command line over the loopback services: attest, bundle fetch, preflight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvattest.cli import main
from nvattest.model import DeviceKind
from nvattest.rim.ids import is_rim_id
from nvattest.testing import Platform
from nvattest.testing.services import Services

NONCE = bytes(range(32))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def one() -> Platform:
    return Platform.build("hopper-1")


@pytest.fixture
def services(one):
    with Services(one) as running:
        yield running


@pytest.fixture
def common(one, services, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "gpu.json").write_text(one.evidence_json(DeviceKind.GPU, NONCE))
    (tmp_path / "roots.pem").write_bytes(one.anchors_pem)
    return [
        "--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url, "--at", str(one.time),
        "--trust-anchors", str(tmp_path / "roots.pem"), "--gpu-evidence-file", str(tmp_path / "gpu.json"),
    ]  # fmt: skip


def attest(common, *more: str) -> int:
    return main(["attest", "--gpu-evidence-source", "file", "--nonce", NONCE.hex(), *common, *more])


def without_evidence(common) -> list[str]:
    return common[: common.index("--gpu-evidence-file")]


def test_attest_over_the_network(common, services, capsys) -> None:
    assert attest(common, "--no-cache") == 0
    assert "Result: TRUSTED" in capsys.readouterr().out
    assert len(services.log) == 9


def test_no_cache_keeps_nothing(common, tmp_path) -> None:
    assert attest(common, "--no-cache") == 0
    assert not (tmp_path / "xdg").exists()


def test_offline_without_anything_at_hand_names_the_first_thing_missing(common, services, capsys) -> None:
    assert attest(common, "--offline") != 0
    assert services.log == []
    assert "--offline" in capsys.readouterr().out


def test_a_service_named_on_the_command_line_that_the_cache_hides_is_said_not_to_be_asked(
    common, services, capsys
) -> None:
    assert attest(common) == 0
    assert "was not asked" not in capsys.readouterr().err
    services.close()
    assert attest(common) == 0
    said = capsys.readouterr().err
    assert f"warning: {services.rim_url} was not asked: all RIMs are in the cache" in said
    assert f"warning: {services.ocsp_url} was not asked: all revocation answers are in the cache" in said
    assert attest(common, "--offline") == 0
    assert attest(common, "--log-level", "error") == 0
    assert "was not asked" not in capsys.readouterr().err
    assert attest(common, "--no-cache") != 0
    assert "Result: TRUSTED" not in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("end", ["/", "/v1/rim", "/v1/rim/"])
def test_a_rim_url_that_ends_as_nvidias_python_packages_have_it_means_the_same(common, services, end) -> None:
    common[common.index("--rim-url") + 1] += end
    assert attest(common) == 0
    rims = services.requests("rim")
    assert rims
    assert all(is_rim_id(rim_id) for rim_id in rims)


def test_a_time_limit_that_is_none_is_a_wrong_argument(common) -> None:
    for text in ("soon", "0", "-1", "nan"):
        assert attest(common, "--timeout", text) == 105


def test_a_cache_folder_that_others_can_write_into_is_refused(common, tmp_path, capsys) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    assert attest(common, "--cache-dir", str(tmp_path / "shared")) != 0
    assert "others may write" in "".join(capsys.readouterr())


def test_a_fetched_bundle_verifies_without_a_network(common, services, tmp_path, capsys) -> None:
    bundle = str(tmp_path / "bundle.json")
    assert main(["bundle", "fetch", *common, "--output", bundle]) == 0
    assert "2 RIMs, 7 revocation answers" in capsys.readouterr().out
    services.forget()
    assert attest(common, "--bundle", bundle) == 0
    assert services.log == []


def test_a_bundle_for_ids_before_a_rollout(one, common, tmp_path) -> None:
    bundle = tmp_path / "bundle.json"
    ids = [text for rim_id in one.rim_ids for text in ("--rim-id", rim_id)]
    assert main(["bundle", "fetch", *without_evidence(common), *ids, "--output", str(bundle)]) == 0
    document = json.loads(bundle.read_text())
    assert [rim["id"] for rim in document["rims"]] == sorted(one.rim_ids)
    assert len(document["ocsp"]) == 4


def test_an_incomplete_bundle_is_not_written(common, tmp_path, capsys) -> None:
    bundle = tmp_path / "bundle.json"
    assert main(["bundle", "fetch", *common, "--rim-id", "NV_GPU_DRIVER_GH100_999.9", "--output", str(bundle)]) == 104
    assert not bundle.exists()
    assert "NV_GPU_DRIVER_GH100_999.9" in capsys.readouterr().err


def preflight(arguments, capsys) -> tuple[int, dict]:
    import importlib

    from nvattest.cli.arguments import Parser, add_global_options

    # As the dispatcher does it.
    module = importlib.import_module("nvattest.cli.preflight")
    parser = Parser(prog="nvattest preflight")
    module.add_arguments(parser)
    add_global_options(parser)
    status = module.run(parser.parse_args([*arguments, "--format", "json"]))
    return status, json.loads(capsys.readouterr().out)


def test_preflight_of_an_evidence_file(one, common, capsys) -> None:
    status, facts = preflight(common, capsys)
    assert status == 0
    assert facts["ready"] is True
    assert sorted(rim["id"] for rim in facts["rims"]) == sorted(one.rim_ids)
    assert all(item["status"] == "good" for rim in facts["rims"] for item in rim["revocation"])
    assert len(facts["devices"][0]["revocation"]) == 3
    assert facts["first_to_expire"].startswith("2026-11-02T00:00")


def test_preflight_of_a_new_driver_for_these_devices(common, capsys) -> None:
    status, facts = preflight([*common, "--driver", "999.99"], capsys)
    assert status == 104
    assert [rim["id"] for rim in facts["rims"] if not rim["available"]] == ["NV_GPU_DRIVER_GH100_999.99"]
    assert len(facts["rims"]) == 2


def test_preflight_of_versions_by_hand(one, common, capsys) -> None:
    status, facts = preflight(
        [*without_evidence(common), "--architecture", "hopper", "--driver", one.driver_version], capsys
    )
    assert status == 0
    assert [rim["available"] for rim in facts["rims"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [(["--driver", "1.2"], "--architecture"), (["--vbios", "96.00.01.00.01"], "--project")],
)
def test_versions_by_hand_that_name_no_rim_say_what_is_needed(common, capsys, arguments, wanted) -> None:
    from nvattest.cli.arguments import ArgumentError

    with pytest.raises(ArgumentError, match=wanted) as caught:
        preflight([*without_evidence(common), *arguments], capsys)
    assert caught.value.status == 106


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--bios", "96.10.55.00.01"], 105, "no switch in the evidence"),
        (["--project", "1010"], 106, "--vbios"),
    ],
)
def test_preflight_ignores_nothing_that_it_was_asked(common, capsys, arguments, status, told) -> None:
    assert main(["preflight", *common, *arguments]) == status
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("part", ["certificate", "evidence", "both"])
def test_a_device_that_cannot_be_read_is_not_passed_over(one, common, tmp_path, capsys, part) -> None:
    """Beside a good one, with which it shares all RIMs."""
    good = json.loads((tmp_path / "gpu.json").read_text())
    bad = dict(good[0])
    for name in ("certificate", "evidence") if part == "both" else (part,):
        bad[name] = "AAAA"
    (tmp_path / "gpu.json").write_text(json.dumps([*good, bad]))
    status, facts = preflight(common, capsys)
    assert status != 0
    assert facts["ready"] is False
    assert facts["problems"][0]["of"] == "device:1"
    assert "cannot be read" in facts["problems"][0]["message"]
    assert main(["bundle", "fetch", *common, "--output", str(tmp_path / "bundle.json")]) != 0
    assert not (tmp_path / "bundle.json").exists()


def test_preflight_of_a_stranger_beside_a_good_device_is_not_ready(one, common, tmp_path, capsys) -> None:
    other = json.loads(Platform.build("hopper-1", seed=2).evidence_json(DeviceKind.GPU, NONCE))
    good = json.loads((tmp_path / "gpu.json").read_text())
    (tmp_path / "gpu.json").write_text(json.dumps([*good, *other]))
    status, facts = preflight(common, capsys)
    assert facts["ready"] is False
    assert status != 0
    assert "no pinned root" in facts["problems"][0]["message"]


def test_preflight_names_a_revoked_signer(tmp_path, common, capsys) -> None:
    revoked = Platform.build("hopper-1", lies=["driver-rim:revoked=0"])
    with Services(revoked) as services:
        common[:4] = ["--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url]
        status, facts = preflight(common, capsys)
    assert status == 204
    assert any("revoked" in problem["message"] for problem in facts["problems"])


def test_other_anchors_than_nvidias_are_told_by_every_command(common, tmp_path, capsys, monkeypatch) -> None:
    # Named by the variable, as nvattest simulate does; an empty one is none.
    place = common.index("--trust-anchors")
    roots = common[place + 1]
    rest = common[:place] + common[place + 2 :]
    told = "trust anchors: custom, not NVIDIA's   *** SIMULATED: this proves nothing ***"
    monkeypatch.setenv("NVATTEST_TRUST_ANCHORS", roots)
    assert main(["preflight", *rest]) == 0
    assert told in capsys.readouterr().out
    _, facts = preflight(rest, capsys)
    assert (facts["anchors"], facts["simulated"]) == ("custom", True)
    assert main(["bundle", "fetch", *rest, "--output", str(tmp_path / "bundle.json")]) == 0
    assert told in capsys.readouterr().err
    monkeypatch.setenv("NVATTEST_TRUST_ANCHORS", "")
    _, facts = preflight(rest, capsys)
    assert (facts["ready"], facts["anchors"], facts["simulated"]) == (False, "NVIDIA", False)
    assert main(["preflight", *rest]) != 0
    assert "trust anchors" not in capsys.readouterr().out
    assert attest(rest, "--no-cache") != 0
    assert "trust anchors: NVIDIA" in capsys.readouterr().out


@pytest.fixture
def fresh_policy(tmp_path):
    pytest.importorskip("regopy", reason="the extra rego is not installed")
    rego = ROOT / "examples" / "policies" / "default.rego"
    chains = [f"x-nvidia-gpu-{name}-cert-chain" for name in ("attestation-report", "driver-rim", "vbios-rim")]
    rules = {chain: {"x-nvidia-cert-ocsp-nonce-matches": True} for chain in chains}
    body = {"type": "JWT", "overall-claims": {"x-nvidia-overall-att-result": True}, "detached-claims": rules}
    (tmp_path / "policy.json").write_text(json.dumps({"version": "4.0", "authorization-rules": body}))
    return {"rego": str(rego), "json": str(tmp_path / "policy.json")}


@pytest.mark.parametrize("language", ["rego", "json"])
def test_a_policy_that_demands_fresh_revocation_passes_each_time(
    common, services, capsys, fresh_policy, language
) -> None:
    demand = ["--relying-party-policy", fresh_policy[language]]
    for _ in range(3):
        assert attest(common, *demand) == 0, capsys.readouterr().out
    assert len(services.requests("rim")) == 2, "RIMs are kept all the same"
    assert len(services.requests("ocsp")) == 21
    services.forget()
    assert attest(common) == 0, "and the answers are kept for runs without a policy"
    assert services.log == []


@pytest.mark.parametrize("language", ["rego", "json"])
def test_a_policy_that_fails_only_for_kept_answers_says_so(
    common, services, capsys, fresh_policy, language, tmp_path, one
) -> None:
    demand = ["--relying-party-policy", fresh_policy[language]]
    assert attest(common) == 0
    services.forget()
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps(one.bundle()))
    for option, source in (
        (["--cached-revocation"], "cache"), (["--offline"], "cache"), (["--bundle", str(bundle)], "bundle"),
    ):  # fmt: skip
        capsys.readouterr()
        assert attest(common, *demand, *option, "-f", "json") == 11
        document = json.loads(capsys.readouterr().out)
        said = document["relying_party_policy"]["reasons"][-1]
        assert "it would match but for x-nvidia-cert-ocsp-nonce-matches" in said
        assert f"answers of the {source} were not made for this request" in said
        assert f"leave out {option[0]}" in said
    assert services.log == []
    assert main(["attest", "--simulate", "hopper-1", *demand]) == 11
    assert "nvattest simulate --platform hopper-1 -- nvattest attest" in capsys.readouterr().out


def test_a_policy_that_fails_for_another_reason_does_not_blame_kept_answers(
    common, capsys, fresh_policy, tmp_path
) -> None:
    assert attest(common) == 0
    text = (ROOT / "examples/policies/default.rego").read_text().replace('measres == "success"', 'measres == "fail"')
    (tmp_path / "never.rego").write_text(text)
    assert attest(common, "--relying-party-policy", str(tmp_path / "never.rego"), "--cached-revocation") == 11
    assert "it would match but for" not in capsys.readouterr().out


def test_an_answer_that_echoes_another_nonce_is_no_kept_answer(tmp_path, fresh_policy, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    liar = Platform.build("hopper-1", lies=["gpu0:ocsp-no-nonce=1"])
    with Services(liar) as services:
        (tmp_path / "gpu.json").write_text(liar.evidence_json(DeviceKind.GPU, NONCE))
        (tmp_path / "roots.pem").write_bytes(liar.anchors_pem)
        place = [
            "--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url, "--at", str(liar.time),
            "--trust-anchors", str(tmp_path / "roots.pem"), "--gpu-evidence-file", str(tmp_path / "gpu.json"),
        ]  # fmt: skip
        assert attest(place, "--relying-party-policy", fresh_policy["rego"]) == 12
    assert "it would match but for" not in capsys.readouterr().out
