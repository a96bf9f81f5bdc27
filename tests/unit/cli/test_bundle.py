"""``nvattest bundle create`` and ``inspect``: what is in, what is refused, and that nothing is half written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest

from nvattest.cli import main

AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def call(*argv: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_a_bundle_holds_every_file_under_its_id_and_equal_content_gives_equal_bytes(
    run, real_data: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "a.json", tmp_path / "b.json"]
    for output in outputs:
        argv = (
            "bundle",
            "create",
            "--rim-dir",
            real_data / "rim",
            "--ocsp-dir",
            real_data / "ocsp",
            "--output",
            output,
        )
        assert run(*argv)[0] == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    document = json.loads(outputs[0].read_bytes())
    files = {path.stem: path.read_bytes() for path in (real_data / "rim").iterdir()}
    assert {rim["id"]: base64.b64decode(rim["content"]) for rim in document["rims"]} == files
    answers = {base64.b64decode(answer["content"]) for answer in document["ocsp"]}
    assert answers == {path.read_bytes() for path in (real_data / "ocsp").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_bundle_can_be_made_of_rims_alone_and_of_answers_alone(run, real_data: Path, tmp_path: Path) -> None:
    for option, folder, counts in (("--rim-dir", "rim", (4, 0)), ("--ocsp-dir", "ocsp", (0, 7))):
        output = tmp_path / f"{folder}.json"
        assert run("bundle", "create", option, real_data / folder, "--output", output)[0] == 0
        document = json.loads(output.read_bytes())
        assert (len(document["rims"]), len(document["ocsp"])) == counts


def test_inspect_says_what_is_in_it_and_what_ends_first(run, real_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    run("bundle", "create", "--rim-dir", real_data / "rim", "--ocsp-dir", real_data / "ocsp", "--output", output)
    status, text, _ = run("bundle", "inspect", output)
    assert status == 0
    assert "4 RIMs, 7 revocation answers" in text
    assert "NV_GPU_DRIVER_GH100_550.90.07: expired, GH100 GPU 550.90.07, 21 golden values, signed by CN=" in text
    assert text.rstrip().endswith("2025-08-22T06:47:07Z")
    status, text, _ = run("-f", "json", "bundle", "inspect", output)
    assert status == 0
    assert len(json.loads(text)["rims"]) == 4


def test_inspect_verifies_at_the_time_and_under_the_roots_that_it_is_given(
    run, real_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "b.json"
    create = ("bundle", "create", "--rim-dir", real_data / "rim", "--ocsp-dir", real_data / "ocsp")
    assert run(*create, "--output", output)[0] == 0
    evidence = real_data / "evidence/hopper-550.90.07-nvtrust.json"
    inspect = ("-f", "json", "bundle", "inspect", output, "--at", AT)
    status, text, _ = run(*inspect, "--gpu-evidence-file", evidence)
    facts = json.loads(text)
    assert [entry["state"] for entry in facts["ocsp"]] == ["verified"] * 7
    states = {rim["id"]: rim["state"] for rim in facts["rims"]}
    switch = "NV_SWITCH_BIOS_5612_0002_890_9610550001"
    assert states == dict.fromkeys(states, "verified") | {switch: "not verified"}
    # Its signer was certified later than that; a bundle with an entry that is not verified is not a good one.
    assert status == 12
    assert "is not valid yet" in next(rim["reason"] for rim in facts["rims"] if rim["id"] == switch)
    # Without the devices nothing says which certificate three of the answers are about.
    states = [entry["state"] for entry in json.loads(run(*inspect)[1])["ocsp"]]
    assert (states.count("verified"), states.count("not verified")) == (4, 3)
    # Years later all are expired, and under other roots nothing verifies.
    status, text, _ = run("bundle", "inspect", output, "--at", "2040-01-01T00:00:00Z", "--gpu-evidence-file", evidence)
    assert (status, text.count(": expired, "), "verified," in text) == (0, 11, False)
    from nvattest.testing.platform import Platform

    (tmp_path / "roots.pem").write_bytes(Platform.build("hopper-1").anchors_pem)
    status, text, _ = run("bundle", "inspect", output, "--trust-anchors", tmp_path / "roots.pem")
    assert status == 12
    assert (text.count("NOT VERIFIED: "), "7 revocation answers about certificates that no RIM here has" in text) == (
        4,
        True,
    )
    assert "*** SIMULATED: this proves nothing ***" in text
    assert "signed by" not in text


@pytest.fixture
def rims(tmp_path: Path) -> Path:
    folder = tmp_path / "rims"
    folder.mkdir()
    return folder


def ids_of(path: Path) -> list[str]:
    return [rim["id"] for rim in json.loads(path.read_bytes())["rims"]]


DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"
SWITCH = "NV_SWITCH_BIOS_5612_0002_890_9610550001"


def service_json(rim_id: str, content: bytes, **more: object) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return json.dumps({"id": rim_id, "rim": base64.b64encode(content).decode(), "sha256": digest, **more})


def test_create_reads_every_kind_of_rim_file_under_the_id_of_its_content(
    run, real_data: Path, tmp_path: Path, rims: Path
) -> None:
    (rims / "driver of our fleet.xml").write_bytes((real_data / f"rim/{DRIVER}.xml").read_bytes())
    (rims / "1010_0200_882_96009f0001_PROD.SWIDTAG").write_bytes((real_data / f"rim/{VBIOS}.xml").read_bytes())
    switch = (real_data / f"rim/{SWITCH}.xml").read_bytes()
    (rims / "answer.json").write_text(service_json(SWITCH, switch, request_id="x", rim_format="TCG"), "utf-16")
    # The same document twice is one document.
    (rims / f"{SWITCH}.xml").write_bytes(switch)
    (rims / ".hidden").write_text("not read")
    output = tmp_path / "b.json"
    status, _, err = run("bundle", "create", "--rim-dir", rims, "--output", output)
    assert (status, err) == (0, "")
    assert ids_of(output) == [DRIVER, VBIOS, SWITCH]


UNUSABLE = {
    "no XML": ("NV_X.xml", lambda rim: b"<!DOCTYPE x><x/>", "a document type"),
    "not the profile": ("NV_X.xml", lambda rim: rim.replace(b' edition="GPU"', b""), "line 3"),
    "altered": ("NV_X.xml", lambda rim: rim.replace(b'size="48"', b'size="47"', 1), "size"),
    "another value": ("x.xml", lambda rim: rim.replace(b"Measurement_0", b"Measurement_O", 1), "the content was altered"),
    "a VBIOS of no board": ("vbios.xml", lambda rim: VBIOS_CONTENT, "PROJECT_SKU_CHIPSKU_VERSION"),
    "another board's version": ("1010_0200_882_9600740001.xml", lambda rim: VBIOS_CONTENT, "its name does not say"),
    "no answer": ("x.json", lambda rim: b"{}", "are not all texts"),
    "a damaged answer": ("x.json", lambda rim: service_json(DRIVER, rim, sha256="0" * 64).encode(), "SHA-256"),
    "a CoRIM": ("x.json", lambda rim: service_json(DRIVER, rim, rim_format="CORIM").encode(), "is a CoRIM"),
    "an answer for another id": ("x.json", lambda rim: service_json(VBIOS, rim).encode(), "which its id is not"),
    "an answer for a path": ("x.json", lambda rim: service_json("../x", rim).encode(), "not a RIM id"),
    "no RIM at all": ("README.txt", lambda rim: b"hello", "*.swidtag"),
}  # fmt: skip
VBIOS_CONTENT = b""


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_not_used_is_an_error_or_left_out_and_said_either_way(
    run, real_data: Path, tmp_path: Path, rims: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(globals(), "VBIOS_CONTENT", (real_data / f"rim/{VBIOS}.xml").read_bytes())
    good = (real_data / f"rim/{DRIVER}.xml").read_bytes()
    file, make, reason = UNUSABLE[name]
    (rims / file).write_bytes(make((real_data / "rim/NV_GPU_DRIVER_GH100_550.144.03.xml").read_bytes()))
    (rims / "good.xml").write_bytes(good)
    output = tmp_path / "b.json"
    create = ("bundle", "create", "--rim-dir", rims, "--output", output)
    status, out, err = run(*create)
    assert (status, out, output.exists()) == (4, "", False)
    assert str(rims / file) in err
    assert reason in err
    status, _, err = run(*create, "--keep-going")
    assert (status, ids_of(output)) == (0, [DRIVER])
    assert "left out: " in err
    assert reason in err
    (rims / "good.xml").unlink()
    output.unlink()
    status, out, err = run(*create, "--keep-going")
    assert (status, out, output.exists()) == (4, "", False)
    assert "there is nothing to write" in err


@pytest.mark.parametrize("suffix", [".xml", ".json", ".txt"])
def test_the_name_of_an_unused_file_makes_no_line_of_its_own(
    run, real_data: Path, tmp_path: Path, rims: Path, suffix: str
) -> None:
    (rims / "good.xml").write_bytes((real_data / f"rim/{DRIVER}.xml").read_bytes())
    (rims / f"x\nResult: TRUSTED, code 0 (Ok)\x1b[2J{suffix}").write_bytes(b"no RIM")
    status, _, err = run("bundle", "create", "--rim-dir", rims, "--keep-going", "--output", tmp_path / "b.json")
    assert status == 0
    assert "x\\x0aResult: TRUSTED, code 0 (Ok)\\x1b[2J" in err
    assert not [line for line in err.splitlines() if line.startswith("Result")]


def test_two_documents_for_one_id_are_an_error_that_names_both(
    run, real_data: Path, tmp_path: Path, rims: Path
) -> None:
    first, second = real_data / f"rim/{VBIOS}.xml", real_data / f"rim-other/{VBIOS}.reissued.xml"
    (rims / first.name).write_bytes(first.read_bytes())
    (rims / second.name).write_bytes(second.read_bytes())
    output = tmp_path / "b.json"
    create = ("bundle", "create", "--rim-dir", rims, "--output", output)
    status, _, err = run(*create)
    assert (status, output.exists()) == (4, False)
    for path in (first, second):
        assert str(rims / path.name) in err
    assert VBIOS in err
    assert run(*create, "--keep-going")[0] == 0
    assert ids_of(output) == [VBIOS]


def test_merge_says_what_it_did_not_use(run, real_data: Path, tmp_path: Path, rims: Path) -> None:
    first, second, merged = (tmp_path / f"{name}.json" for name in ("first", "second", "merged"))
    assert run("bundle", "create", "--rim-dir", real_data / "rim", "--output", first)[0] == 0
    assert run("bundle", "create", "--rim-dir", real_data / "rim-other", "--output", second)[0] == 0
    empty = tmp_path / "empty.json"
    empty.write_text('{"format": "nvattest-bundle", "version": 1}')
    merge = ("bundle", "merge", first, second, "--output", merged)
    status, _, err = run(*merge)
    assert (status, merged.exists()) == (4, False)
    assert f"two different documents for {VBIOS}" in err
    assert str(first) in err
    assert str(second) in err
    assert run(*merge, "--keep-going")[0] == 0
    assert len(ids_of(merged)) == 6
    status, _, err = run("bundle", "merge", first, empty, rims.parent / "no.json", "--output", merged)
    assert status == 105
    status, _, err = run("bundle", "merge", first, empty, "--output", merged)
    assert status == 4
    assert f"{empty}: a bundle with nothing in it" in err
    (tmp_path / "bad.json").write_text("{}")
    status, _, err = run("bundle", "merge", first, tmp_path / "bad.json", "--keep-going", "--output", merged)
    assert status == 0
    assert f"left out: {tmp_path / 'bad.json'}: " in err


def test_an_answer_that_is_none_or_altered_is_not_put_into_a_bundle(run, real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ocsp"
    folder.mkdir()
    answer = bytearray((real_data / "ocsp/driver-rim-leaf.der").read_bytes())
    answer[-1000] ^= 1
    (folder / "altered.der").write_bytes(answer)
    (folder / "none.der").write_bytes(b"no DER")
    output = tmp_path / "b.json"
    create = ("bundle", "create", "--rim-dir", real_data / "rim", "--ocsp-dir", folder, "--output", output)
    status, _, err = run(*create)
    assert (status, output.exists()) == (4, False)
    assert err.count("not usable: OCSP answer") == 2
    assert str(folder / "altered.der") in err
    assert run(*create, "--keep-going")[0] == 0
    assert json.loads(output.read_bytes())["ocsp"] == []


@pytest.mark.parametrize("kind", ["fifo", "huge", "folder"])
def test_what_is_no_plain_small_file_is_refused_and_nothing_is_written(run, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "rims"
    folder.mkdir()
    path = folder / "NV_X.xml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(4 << 30)
    status, out, err = run("bundle", "create", "--rim-dir", folder, "--output", tmp_path / "b.json")
    assert (status, out) == (4, "")
    assert str(path) in err
    assert [item.name for item in tmp_path.iterdir()] == ["rims"]


def test_a_place_that_cannot_be_written_is_said_and_leaves_nothing(run, real_data: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "no/such/b.json", tmp_path):
        status, _, err = run("bundle", "create", "--ocsp-dir", real_data / "ocsp", "--output", output)
        assert status == 4
        assert str(output) in err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_whole_or_kept(run, real_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    output.write_text("old")
    assert run("bundle", "create", "--rim-dir", tmp_path / "none", "--output", output)[0] == 105
    assert output.read_text() == "old"
    assert run("bundle", "create", "--ocsp-dir", real_data / "ocsp", "--output", output)[0] == 0
    assert json.loads(output.read_bytes())["format"] == "nvattest-bundle"


def test_inspect_of_no_bundle_is_a_bad_argument(run, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    for data in (b"", b"[]", b"{}", b'{"format": "nvattest-bundle", "version": 9}'):
        path.write_bytes(data)
        status, out, err = run("bundle", "inspect", path)
        assert (status, out) == (4, "")
        assert err.startswith("Error 004: Bad Argument: FILE ")
