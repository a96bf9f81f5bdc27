"""The story on a terminal: what failed, why, the map, the chains, and files that lie or are of another version."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any, get_type_hints

import pytest

from nvattest._package import schema_bytes
from nvattest._text import clean
from nvattest.errors import InputError
from nvattest.report import reading
from nvattest.report.catalogue import Diagnosis, diagnose, failures
from nvattest.report.reading import common_name, read_appraisal
from nvattest.report.terminal import Terminal, columns, listed
from nvattest.report.text import account, ranges, story

Appraise = Callable[..., dict[str, Any]]
PLATFORMS = [
    ("hopper-8-ppcie", ()),
    ("hopper-8-ppcie", ("gpu3:measurement=9",)),
    ("hopper-8-ppcie", ("driver-rim:revoked=1,keyCompromise",)),
    ("hopper-8-ppcie", ("gpu5:topology=foreign",)),
    ("blackwell-8-mpt", ("gpu2:debug",)),
    ("hopper-1", ("vbios-rim:missing",)),
    ("hopper-1", ("gpu0:chain-format",)),
    ("hopper-1", ("gpu0:truncate=40",)),
]


def explain(
    document: object, *, everything: bool = False, device: str | None = None, color: bool = False, unicode: bool = True
) -> str:
    terminal = Terminal(color=color, unicode=unicode)
    return story(read_appraisal(document), terminal, everything=everything, device=device)


@pytest.mark.parametrize(("platform", "lies"), PLATFORMS)
def test_every_line_fits_80_columns_with_and_without_everything(
    appraise: Appraise, platform: str, lies: tuple[str, ...]
) -> None:
    document = appraise(platform, *lies)
    for everything in (False, True):
        for unicode in (False, True):
            text = explain(document, everything=everything, unicode=unicode)
            assert max(columns(line) for line in text.split("\n")) <= 80
            assert "\x1b" not in text
            assert unicode or text.isascii()


def test_a_mismatch_is_told_with_index_values_rim_causes_and_the_next_step(appraise: Appraise) -> None:
    text = explain(appraise("hopper-8-ppcie", "gpu3:measurement=9"))
    assert "NOT TRUSTED" in text
    assert "11 of 12 devices trusted" in text
    assert "index 9 (SPDM block 10), VBIOS RIM" in text
    assert "32 of 33 covered measurements match; index 9 does not." in text
    assert "All 7 other devices with the same versions match" in text
    assert "NV_GPU_VBIOS_" in text
    assert "TDX cloud guest" in text
    assert "$ nvidia-smi conf-compute -d" in text
    assert "Not shown in full: GPU-0" in text


def test_a_shared_mismatch_points_at_the_rim(appraise: Appraise) -> None:
    view = read_appraisal(appraise("hopper-8-ppcie", "vbios-rim:golden=9"))
    found = failures(view)
    assert [failure.check.id for failure in found] == ["measurements"]
    assert len(found[0].devices) == 8
    diagnosis = diagnose(found[0].check, view)
    assert any("a cause that they share, such as the RIM" in fact for fact in diagnosis.facts)
    assert any("re-issued" in cause for cause in diagnosis.causes)


def test_index_52_names_the_reboot_of_the_host(appraise: Appraise) -> None:
    document = appraise("hopper-1", "gpu0:measurement=9")
    for cell in document["devices"][0]["measurements"]:
        if cell["index"] == 9:
            cell["state"] = "matched"
        if cell["index"] == 52:
            cell |= {"state": "mismatched", "source": "driver", "golden": ["aa"], "runtime": "bb"}
    text = explain(document)
    assert "Only index 52 differs" in text
    assert "Reboot the host" in text


def test_the_map_shows_matched_mismatched_exempt_and_uncovered_cells_with_their_sources(appraise: Appraise) -> None:
    text = explain(appraise("hopper-1", "gpu0:measurement=9"), unicode=False)
    rows = dict(re.findall(r"^ {4,5}( ?\d+)   ([+Xo.].*)$", text, re.MULTILINE))
    assert len(rows) == 8
    cells = rows[" 8"].split() if " 8" in rows else rows["8"].split()
    assert cells[1] == "XV"
    assert cells[0] == "+V"
    assert "oD4" in text, "index 35 is exempt and has four alternatives"
    assert ". 31 not covered by a RIM" in text
    assert "D driver RIM, V VBIOS RIM" in text


def test_a_revoked_rim_is_one_failure_of_all_its_devices(appraise: Appraise) -> None:
    text = explain(appraise("hopper-8-ppcie", "driver-rim:revoked=0,keyCompromise"))
    assert "GPU-0, GPU-1, GPU-2 and 5 more" in text
    assert "REVOKED (keyCompromise)" in text
    assert "NVIDIA withdrew this certificate" in text


def test_one_revoked_signer_of_two_rims_is_one_failure_that_names_both_checks(appraise: Appraise) -> None:
    shared = read_appraisal(appraise("hopper-8-ppcie", "driver-rim:revoked=1"))
    assert [(failure.ids, len(failure.devices)) for failure in failures(shared)] == [
        ("driver-rim-revocation and vbios-rim-revocation", 8)
    ]
    own = read_appraisal(appraise("hopper-8-ppcie", "driver-rim:revoked=0"))
    assert [failure.ids for failure in failures(own)] == ["driver-rim-revocation"]
    text = explain(appraise("hopper-8-ppcie", "driver-rim:revoked=1"))
    assert "step 12, driver-rim-revocation and vbios-rim-revocation" in text
    assert text.count("NVIDIA withdrew this certificate") == 1
    assert text.count("The story") == 1, "the seven others failed alike"
    assert "Not shown in full: GPU-1, GPU-2" in text


def test_the_same_words_about_other_devices_stay_failures_of_their_own(appraise: Appraise) -> None:
    obj = appraise("hopper-8-ppcie", "driver-rim:revoked=1")
    # GPU-0's VBIOS RIM is well: what is said of eight GPUs is not what is said of seven.
    for check in obj["devices"][0]["checks"]:
        if check["id"] == "vbios-rim-revocation":
            check |= {"outcome": "pass", "acceptable": True}
    found = [(failure.ids, len(failure.devices)) for failure in failures(read_appraisal(obj))]
    assert found == [("driver-rim-revocation", 8), ("vbios-rim-revocation", 7)]


def test_the_chain_is_a_tree_with_validity_revocation_and_responder(appraise: Appraise) -> None:
    text = explain(appraise("hopper-1"))
    assert "NVIDIA Device Identity CA" in text
    assert "pinned root" in text
    assert re.search(r"└─ NVIDIA GH100 Identity\n +2022-01-12 to 9999-12-31\n +not revoked from the bundle", text)
    assert "by NVIDIA OCSP" in text


def test_a_trusted_platform_shows_one_device_as_an_example(appraise: Appraise) -> None:
    text = explain(appraise("hopper-8-ppcie"))
    assert "✓ TRUSTED" in text
    assert "WHAT FAILED" not in text
    assert text.count("The story") == 1
    assert explain(appraise("hopper-8-ppcie"), everything=True).count("The story") == 12


def test_one_device_can_be_chosen_and_a_wrong_one_is_refused_with_the_list(appraise: Appraise) -> None:
    document = appraise("hopper-8-ppcie")
    assert explain(document, device="switch-1").startswith("SWITCH-1")
    with pytest.raises(InputError, match="GPU-0"):
        explain(document, device="GPU-9")


def test_color_is_only_there_when_asked_for(appraise: Appraise) -> None:
    document = appraise("hopper-1", "gpu0:measurement=9")
    plain, coloured = explain(document), explain(document, color=True)
    assert "\x1b[31" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


# -- files that are older, newer, edited or hostile


@pytest.mark.parametrize(
    ("view", "name", "made_here"),
    [
        (reading.AppraisalView, "", {"notices"}),
        (reading.DeviceView, "device", set()),
        (reading.CheckView, "check", {"device"}),
        (reading.ChainView, "chain", set()),
        (reading.CertificateView, "certificate", set()),
        (reading.RevocationView, "revocation", set()),
        (reading.RimView, "rim", set()),
        (reading.CellView, "measurement", set()),
        (reading.SvnView, "svn", set()),
    ],
)
def test_every_member_that_a_view_reads_is_one_of_the_schema(view: type, name: str, made_here: set[str]) -> None:
    schema = json.loads(schema_bytes("appraisal-1.json"))
    members = (schema["$defs"][name] if name else schema)["properties"]
    assert set(get_type_hints(view)) - set(members) == made_here


def test_every_member_of_a_report_and_of_an_identity_is_one_of_the_schema() -> None:
    schema = json.loads(schema_bytes("appraisal-1.json"))["$defs"]
    reports = {**schema["gpu-report"]["properties"], **schema["switch-report"]["properties"]}
    assert set(get_type_hints(reading.ReportView)) <= set(reports)
    identity = schema["device"]["properties"]["identity"]["oneOf"][1]["properties"]
    assert set(get_type_hints(reading.IdentityView)) <= set(identity)
    finding = schema["chain"]["properties"]["findings"]["items"]["properties"]
    assert set(get_type_hints(reading.FindingView)) == set(finding)


def test_a_newer_and_an_older_version_are_said(appraise: Appraise) -> None:
    document = appraise()
    document["version"] = 2
    assert "newer than this program" in explain(document)
    document["version"] = 0
    assert "older than this program" in explain(document)
    del document["version"]
    assert "does not say which version" in explain(document)


def test_a_check_of_the_future_is_shown_as_it_stands(appraise: Appraise) -> None:
    document = appraise()
    document["devices"][0]["checks"].append({"id": "moon-phase", "outcome": "fail", "title": "the moon is full"})
    text = explain(document)
    assert "does not know the checks moon-phase" in text
    assert "the moon is full" in text
    assert "NOT TRUSTED" in text


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["devices"][0]["checks"].pop(),
        lambda d: d["devices"].clear(),
        lambda d: d["checks"].clear(),
        lambda d: d["devices"][0]["checks"][5].update(outcome="fail"),
        lambda d: d["devices"][0]["checks"][5].update(outcome="skipped"),
        lambda d: d["devices"][0]["checks"][5].update(outcome="splendid"),
        lambda d: d["devices"][0].update(trusted=False),
        lambda d: d["devices"][0].update(trusted="yes"),
        lambda d: d.update(checks="all good"),
        lambda d: d["checks"].append("failed"),
        lambda d: d["devices"].append("GPU-1"),
        lambda d: d["devices"].extend(deepcopy(d["devices"][0]) for _ in range(300)),
        lambda d: d["devices"][0]["checks"].append(None),
        lambda d: d["devices"][0].update(kind="dpu"),
        lambda d: d.update(result_code=12),
        lambda d: d.update(result_code=None),
    ],
)
def test_a_file_cannot_claim_more_trust_than_its_checks_give(
    appraise: Appraise, edit: Callable[[dict[str, Any]], object]
) -> None:
    document = appraise()
    assert read_appraisal(document).trusted
    edit(document)
    assert document["trusted"] is True
    view = read_appraisal(document)
    assert not view.trusted
    assert any("but its checks do not" in notice for notice in view.notices)


def test_what_does_not_say_that_it_is_real_counts_as_simulated(appraise: Appraise) -> None:
    document = appraise()
    del document["simulated"]
    assert "SIMULATED" in explain(document)


@pytest.mark.parametrize("value", [None, [], "x", 5, {}, {"a": 1}, [1, None], True, 1.5, 10**40])
def test_any_value_in_any_place_is_displayed_or_left_out_and_never_raises(appraise: Appraise, value: object) -> None:
    original = appraise()
    for key in list(original):
        if key != "format":
            explain({**original, key: value}, everything=True)
    for key in list(original["devices"][0]):
        changed = appraise()
        changed["devices"][0][key] = value
        explain(changed, everything=True)
    for part in ("chain", "report", "identity"):
        for key in list(original["devices"][0][part]):
            changed = appraise()
            changed["devices"][0][part][key] = value
            explain(changed, everything=True)


def test_what_is_no_appraisal_is_refused() -> None:
    for value in (None, [], {}, {"format": "nvattest-bundle"}, "x"):
        with pytest.raises(InputError) as caught:
            explain(value)
        assert caught.value.code == "explain-format"


EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp\u200b\r\n\x00<script>alert(1)</script>"


def test_terminal_control_in_a_file_is_spelled_out(appraise: Appraise) -> None:
    document = appraise("hopper-1", "gpu0:measurement=9")
    device = document["devices"][0]
    device["label"] = device["origin"] = device["identity"]["hwmodel"] = EVIL
    device["checks"][3]["detail"] = device["rims"][0]["id"] = EVIL
    device["chain"]["certificates"][0]["subject"] = f"CN={EVIL}"
    document["anchors"] = EVIL
    text = explain(document, everything=True)
    assert not set(text) & set("\x1b\x07\u202e\u200b\r\x00")
    assert "\\x1b" in text
    assert "\\u202e" in text


def test_helpers_keep_what_is_harmless() -> None:
    assert clean("Grüße, 日本 ✓") == "Grüße, 日本 ✓"
    assert clean("x" * 5000).endswith("[3000 more characters]")
    assert common_name("O=a\\,CN=no,CN=yes,C=US") == "yes"
    assert common_name("O=nobody") == "O=nobody"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b", "c"], maximum=2) == "a, b and 1 more"
    assert listed([]) == ""


def test_a_withdrawn_certificate_is_not_answered_with_fetch_again(appraise: Appraise) -> None:
    revoked = diagnosis_of(appraise("hopper-1", "driver-rim:revoked=1"), "driver-rim-revocation")
    stale = diagnosis_of(appraise("hopper-1", "driver-rim:stale=1"), "driver-rim-revocation")
    assert not any("bundle fetch" in action for action in revoked.actions)
    assert revoked.actions
    assert any("bundle fetch" in action for action in stale.actions)
    assert all(action.startswith("$ ") or action.endswith(".") for action in (*revoked.actions, *stale.actions))


def test_a_wrong_topology_names_every_link_that_does_not_fit(appraise: Appraise) -> None:
    facts = diagnosis_of(appraise("hopper-8-ppcie", "gpu3:topology=foreign"), "topology").facts
    assert facts[0] == "GPU-3 does not name SWITCH-3, which names it."
    assert re.fullmatch(r"GPU-3 names the switch [0-9A-F]{16}, which is not here\.", facts[1])


def diagnosis_of(appraisal: dict[str, Any], check: str) -> Diagnosis:
    view = read_appraisal(appraisal)
    return diagnose(next(failure.check for failure in failures(view) if failure.check.id == check), view)


def test_what_a_policy_allows_of_the_guest_is_said_beside_what_failed() -> None:
    lists = {"id": "quote-revocation", "outcome": "absent", "tolerated_by": "crl", "detail": "no list"}
    failed = {"id": "guest-state", "outcome": "fail", "detail": "it is in debug mode"}
    view = read_appraisal({"format": "nvattest-appraisal", "guest": {"kind": "sev_guest", "checks": [lists, failed]}})
    assert "Allowed by the policy: crl" in account(view, Terminal())


def test_labels_are_joined_while_they_follow_each_other() -> None:
    assert ranges(["GPU-0", "GPU-1", "GPU-2", "SWITCH-3", "SWITCH-4"]) == ["GPU-0 to GPU-2", "SWITCH-3", "SWITCH-4"]
    # More digits than Python makes a number of.
    assert ranges([foreign := f"GPU-{'1' * 5000}"]) == [foreign]
