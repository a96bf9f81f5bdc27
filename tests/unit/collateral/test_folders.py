"""``--rim-dir``: which file of a folder is the RIM of which id, whatever its name and kind."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvattest._system import read_bounded
from nvattest.appraisal.inputs import Source
from nvattest.cli import main
from nvattest.collateral.folders import read_ocsp_folder, rims_by_id
from nvattest.collateral.gather import rim_url
from nvattest.errors import InputError, ResultCode
from nvattest.rim.document import parse_rim
from nvattest.rim.ids import fits_rim_id, rim_id_of
from nvattest.testing.platform import Platform

DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"
SWITCH = "NV_SWITCH_BIOS_5612_0002_890_9610550001"
NONCE = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
AT = "device=2025-08-21T07:00:00Z,rim=2025-10-24T12:00:00Z"


def answer(rim_id: str, content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return json.dumps({"id": rim_id, "rim": base64.b64encode(content).decode(), "sha256": digest}).encode()


@pytest.mark.parametrize(
    ("file", "form"),
    [
        (f"{VBIOS}.xml", bytes),
        (f"{VBIOS}.swidtag", bytes),
        (f"{VBIOS}.reissued.xml", bytes),
        ("1010_0200_882_96009F0001_PROD.swidtag.xml", bytes),
        ("1010_0200_882_96009f0001_PROD.SWIDTAG", bytes),
        ("vbios of our fleet.xml", bytes),
        (f"{VBIOS}.json", lambda content: answer(VBIOS, content)),
        ("saved answer.json", lambda content: answer(VBIOS, content)),
        ("powershell.json", lambda content: answer(VBIOS, content).decode().encode("utf-16")),
    ],
)
def test_a_rim_is_found_under_any_name_and_in_any_kind_of_file(real_data: Path, tmp_path: Path, file, form) -> None:
    content = (real_data / f"rim/{VBIOS}.xml").read_bytes()
    (tmp_path / file).write_bytes(form(content))
    (tmp_path / "driver.swidtag").write_bytes((real_data / f"rim/{DRIVER}.xml").read_bytes())
    (tmp_path / f"{SWITCH}.xml").write_bytes(b"another device's, not opened")
    (tmp_path / "notes.json").write_bytes(b"{}")
    (tmp_path / "notes.xml").write_bytes(b"<notes/>")
    found = rims_by_id(str(tmp_path), [DRIVER, VBIOS])
    assert found.unavailable == {}
    assert found.rims[VBIOS].content == content
    assert (found.rims[VBIOS].source, found.rims[VBIOS].origin) == (Source.FILE, str(tmp_path / file))
    assert found.rims[DRIVER].origin == str(tmp_path / "driver.swidtag")


def test_what_is_not_there_is_unavailable_by_its_id(real_data: Path, tmp_path: Path) -> None:
    # The right version of another board, and an unreadable file under the right name.
    other = (real_data / "rim-other/1010_0205_862_9600740020_PROD.swidtag.xml").read_bytes()
    (tmp_path / "1010_0205_862_9600740020_PROD.swidtag.xml").write_bytes(other)
    (tmp_path / f"{DRIVER}.json").write_bytes(b"{")
    wanted = "NV_GPU_VBIOS_1010_0200_882_9600740020"
    found = rims_by_id(str(tmp_path), [DRIVER, wanted, "../x"])
    assert found.rims == {}
    assert {key: missing.code for key, missing in found.unavailable.items()} == {
        f"rim:{DRIVER}": ResultCode.RIM_INTERNAL_ERROR,
        f"rim:{wanted}": ResultCode.RIM_NOT_FOUND,
    }


def test_an_answer_of_the_service_has_the_id_that_it_says_under_the_name_of_another(
    real_data: Path, tmp_path: Path
) -> None:
    content = (real_data / f"rim/{VBIOS}.xml").read_bytes()
    (tmp_path / f"{DRIVER}.json").write_bytes(answer(VBIOS, content))
    found = rims_by_id(str(tmp_path), [DRIVER, VBIOS])
    assert {name: rim.content for name, rim in found.rims.items()} == {VBIOS: content}
    assert list(found.unavailable) == [f"rim:{DRIVER}"]
    assert rims_by_id(str(tmp_path), [VBIOS]).rims[VBIOS].content == content


def test_two_documents_for_a_wanted_id_are_an_error_that_names_both(real_data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / f"{VBIOS}.xml", tmp_path / f"{VBIOS}.reissued.xml"
    first.write_bytes((real_data / f"rim/{VBIOS}.xml").read_bytes())
    second.write_bytes((real_data / f"rim-other/{VBIOS}.reissued.xml").read_bytes())
    with pytest.raises(InputError) as caught:
        rims_by_id(str(tmp_path), [VBIOS])
    assert caught.value.code == "bundle-conflict"
    for path in (first, second):
        assert str(path) in str(caught.value)
    # They concern nobody who wants another one.
    assert rims_by_id(str(tmp_path), [DRIVER]).rims == {}
    second.write_bytes(first.read_bytes())
    assert list(rims_by_id(str(tmp_path), [VBIOS]).rims) == [VBIOS]


def test_the_id_of_each_simulated_rim_follows_from_its_content_or_fits_it() -> None:
    for name in ("hopper-1", "hopper-8-ppcie", "blackwell-2"):
        for rim_id, content in Platform.build(name).rims().items():
            document = parse_rim(content)
            assert rim_id_of(document, f"{rim_id}.xml") == rim_id
            assert fits_rim_id(document, rim_id)
            assert not fits_rim_id(document, rim_id[:-1] + "X")


def test_the_id_of_each_real_rim_follows_from_its_content_and_name(real_rims: dict[str, Path]) -> None:
    found = {name: rim_id_of(parse_rim(path.read_bytes()), path.name) for name, path in real_rims.items()}
    good = {name: rim_id for name, rim_id in found.items() if name.startswith("rim/")}
    assert good == {name: Path(name).stem for name in good}
    assert found["rim-other/1010_0205_862_9600740020_PROD.swidtag.xml"] == "NV_GPU_VBIOS_1010_0205_862_9600740020"
    assert found["rim-other/g520_0200_885_9600740001_PROD.swidtag.xml"] == "NV_GPU_VBIOS_G520_0200_885_9600740001"
    assert found["rim-other/NV_GPU_VBIOS_1010_0200_882_96009F0001.reissued.xml"] == VBIOS


def test_what_comes_from_a_folder_is_said_to_come_from_a_file(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rim_id in (DRIVER, VBIOS):
        (tmp_path / f"copy of {rim_id}.xml").write_bytes((real_data / f"rim/{rim_id}.xml").read_bytes())
    argv = [
        "attest", "-v", "--gpu-evidence-source", "file", "--offline", "--no-cache", "--rim-store", "dir",
        "--gpu-evidence-file", str(real_data / "evidence/hopper-550.90.07-nvtrust.json"),
        "--rim-dir", str(tmp_path), "--nonce", NONCE, "--at", AT,
    ]  # fmt: skip
    assert main(argv) != 0
    text = capsys.readouterr().out
    for rim_id in (DRIVER, VBIOS):
        assert f"{rim_id} from the file ({tmp_path / f'copy of {rim_id}.xml'})" in text
    assert "from the bundle" not in text
    assert {answer.source for answer in read_ocsp_folder(str(real_data / "ocsp")).ocsp} == {Source.FILE}


@pytest.mark.parametrize("base", ["", "/", "/v1/rim", "/v1/rim/", "/v1/rim//"])
def test_a_base_url_may_end_as_that_of_nvidias_python_packages_does(base: str) -> None:
    assert rim_url(f"https://rim.example{base}", DRIVER) == f"https://rim.example/v1/rim/{DRIVER}"
    assert rim_url(f"https://rim.example/mirror{base}", DRIVER) == f"https://rim.example/mirror/v1/rim/{DRIVER}"


CHANGES = {
    "an attribute is missing": ((b' edition="GPU"', b""), ("line 3", "Meta", "edition")),
    "another value": ((b'active="True"', b'active="true"'), ("line ", "Resource[8]", "'true'")),
    "a number with a zero before it": ((b'index="1"', b'index="01"'), ("line ", "Resource[2]", "'01'")),
    "text between elements": ((b"</ns0:Payload>", b"stray</ns0:Payload>"), ("line ", "stray")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_document_outside_the_profile_is_refused_with_line_and_element(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, expected = CHANGES[name]
    content = (real_data / f"rim/{DRIVER}.xml").read_bytes()
    assert change[0] in content
    (tmp_path / f"{DRIVER}.xml").write_bytes(content.replace(*change, 1))
    argv = [
        "-f", "json", "attest", "--gpu-evidence-source", "file", "--offline", "--no-cache", "--rim-store", "dir",
        "--gpu-evidence-file", str(real_data / "evidence/hopper-550.90.07-nvtrust.json"),
        "--rim-dir", str(tmp_path), "--nonce", NONCE, "--at", AT,
    ]  # fmt: skip
    assert main(argv) != 0
    [device] = json.loads(capsys.readouterr().out)["appraisal"]["devices"]
    [check] = [check for check in device["checks"] if check["id"] == "driver-rim-format"]
    assert check["outcome"] == "fail"
    for said in expected:
        assert said in check["detail"]


def test_the_schema_engine_is_imported_for_a_refused_rim_only(real_data: Path) -> None:
    code = (
        "import sys; from nvattest.rim.document import parse_rim; from nvattest.rim.xml import explained\n"
        f"data = open({str(real_data / f'rim/{DRIVER}.xml')!r}, 'rb').read(); parse_rim(data)\n"
        "assert 'xmlschema' not in sys.modules\n"
        "try: parse_rim(data.replace(b'edition', b'editioo'))\n"
        "except Exception as error: print(explained(error, data.replace(b'edition', b'editioo')))\n"
        "assert 'xmlschema' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "missing required attribute 'edition'" in done.stdout


def test_a_file_that_has_nothing_to_give_now_is_refused_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc/kmsg, which is a regular file by its mode."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    read, write = os.pipe()
    os.set_blocking(read, False)
    monkeypatch.setattr("stat.S_ISREG", lambda _: True)
    monkeypatch.setattr(os, "open", lambda *_, **__: read)
    with pytest.raises(InputError, match="gives nothing now"):
        read_bounded(str(path), 100)
    os.close(write)
