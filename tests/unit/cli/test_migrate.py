"""``nvattest migrate check``: what it finds in a program for the old SDK, and that it runs nothing of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nvattest.cli import main
from nvattest.cli.migrate import check_path, check_source

OLD = """
from nv_attestation_sdk import attestation
import nv_attestation_sdk.attestation as att
from nv_attestation_sdk.attestation import Attestation as Client
from verifier import cc_admin
from verifier.rim import golden_measurement
import os

client = attestation.Attestation()
client.set_name("thisNode1")
client.add_verifier(attestation.Devices.GPU, attestation.Environment.LOCAL, "", "")
client.add_verifier(attestation.Devices.CPU, attestation.Environment.TEST, "", "")
if client.get_evidence() == []:
    raise SystemExit

class Worker:
    def __init__(self):
        self.client = Client("second")

    def work(self):
        self.client.attest([])
        att.Attestation.set_nonce("00")
        return cc_admin.attest({"user_mode": False, "driver_rim": "x.xml"}, "n", [])

def later(whatever):
    return whatever.validate_token("{}")

os.environ["NV_ALLOW_HOLD_CERT"] = "true"
"""


def verdicts(source: str) -> dict[tuple[int, str], str]:
    return {(finding.line, finding.use): finding.verdict for finding in check_source(source, "a.py")}


def test_every_use_has_its_line_and_verdict() -> None:
    assert verdicts(OLD) == {
        (2, "import nv_attestation_sdk.attestation"): "same",
        (3, "import nv_attestation_sdk.attestation"): "same",
        (4, "import nv_attestation_sdk.attestation.Attestation"): "same",
        (5, "import verifier.cc_admin"): "same",
        (6, "import verifier.rim.golden_measurement"): "decision",
        (9, "Attestation()"): "same",
        (10, "set_name()"): "same",
        (11, "add_verifier()"): "same",
        (12, "add_verifier()"): "decision",
        (13, "get_evidence()"): "changed",
        (13, "get_evidence() == []"): "decision",
        (18, "Attestation()"): "changed",
        (21, "attest()"): "changed",
        (22, "set_nonce()"): "changed",
        (23, "attest()"): "changed",
        (23, '"driver_rim"'): "changed",
        (23, '"user_mode": False'): "changed",
        (26, "validate_token()"): "changed",
        (28, '"NV_ALLOW_HOLD_CERT"'): "changed",
    }


def test_a_file_without_the_old_sdk_has_no_findings() -> None:
    assert verdicts("class C:\n    def attest(self): ...\nC().attest()\nx = 'notasecret'\n") == {}


def test_a_migrated_program_is_recognised() -> None:
    found = check_source(
        "from nvattest.compat.nv_attestation_sdk import attestation\nattestation.Attestation()\n", "a.py"
    )
    assert [(finding.verdict, finding.message) for finding in found] == [
        ("same", "already nvattest.compat"), ("same", ""),
    ]  # fmt: skip


def test_modules_that_nobody_offers_need_a_decision() -> None:
    for line in ("import ppcie.verifier.verification", "from verifier import exceptions", "import verifier.nonsense"):
        assert "decision" in verdicts(line).values(), line


def test_nothing_is_executed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        f"from nv_attestation_sdk import attestation\nopen({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(3)\n"
    )
    assert check_path(str(tmp_path)).files == 1
    assert not (tmp_path / "ran").exists()


def test_unreadable_files_are_named_and_the_rest_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.py").write_text("def (")
    (tmp_path / "null.py").write_bytes(b"x = 1\0")
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'")
    (tmp_path / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    (tmp_path / "good.py").write_text("from nv_attestation_sdk import attestation\n")
    assert main(["migrate", "check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for name in ("bad.py", "null.py", "latin.py", "deep.py"):
        assert f"{name}: cannot be read as Python" in out
    assert "1 uses unchanged" in out


def test_installed_packages_and_hidden_folders_are_left_out(tmp_path: Path) -> None:
    for folder in (".git", "node_modules", "env", "src"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("import nv_attestation_sdk\n")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    assert check_path(str(tmp_path)).files == 1


def test_the_exit_status_says_whether_something_is_to_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.py"
    file.write_text("from nv_attestation_sdk import attestation\nattestation.Attestation().get_token()\n")
    assert main(["migrate", "check", str(file)]) == 0
    file.write_text(OLD)
    assert main(["-f", "json", "migrate", "check", str(file)]) == 1
    report = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert report["ready"] is False
    assert {"file", "line", "use", "verdict", "message"} == set(report["findings"][0])


def test_a_path_that_is_not_there_is_a_wrong_argument(tmp_path: Path) -> None:
    assert main(["migrate", "check", str(tmp_path / "none")]) == 105
    assert main(["migrate"]) == 106


def test_star_imports_texts_and_getattr_are_seen() -> None:
    source = (
        "from nv_attestation_sdk.attestation import *\n"
        "client = Attestation()\n"
        "client.add_verifier(Devices.GPU, Environment.TEST, '', '')\n"
        "getattr(client, name)('x')\n"
        "import_module('nv_attestation_sdk.attestation')\n"
        "run(['python', '-m', 'verifier.cc_admin'])\n"
    )
    assert verdicts(source) == {
        (1, "import nv_attestation_sdk.attestation.*"): "same",
        (2, "Attestation()"): "same",
        (3, "add_verifier()"): "decision",
        (4, "getattr()"): "decision",
        (5, '"nv_attestation_sdk.attestation"'): "decision",
        (6, '"verifier.cc_admin"'): "decision",
    }
    assert verdicts("run(['python', '-m', 'verifier.cc_admin'])") == {(1, '"verifier.cc_admin"'): "decision"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import nv_attestation_sdk", "from nvattest.compat import nv_attestation_sdk"),
        ("import nv_attestation_sdk.attestation", "from nvattest.compat import nv_attestation_sdk"),
        ("import verifier.cc_admin as v", "import nvattest.compat.verifier.cc_admin as v"),
        ("from verifier import cc_admin", "from nvattest.compat.verifier import cc_admin"),
        (
            "from nv_attestation_sdk.attestation import Attestation as A",
            "from nvattest.compat.nv_attestation_sdk.attestation import Attestation as A",
        ),
        (
            "from nv_attestation_sdk.attestation import *",
            "from nvattest.compat.nv_attestation_sdk.attestation import *",
        ),
    ],
)
def test_the_new_import_that_is_proposed_works_and_binds_the_same_names(old: str, new: str) -> None:
    (finding,) = check_source(old, "a.py")
    assert finding.message == f"change it to: {new}"
    names: dict[str, object] = {}
    exec(new, names)  # noqa: S102 - the text is one of the six above
    wanted = "Attestation" if "*" in old else old.rsplit(maxsplit=1)[-1].partition(".")[0]
    assert wanted in names


def test_pipes_devices_and_loops_do_not_stop_it(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = '\\d'\n")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "endless.py").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(".")
    report = check_path(str(tmp_path))
    assert report.files == 3
    assert [problem.partition(": ")[2] for problem in report.problems] == ["not a regular file, not read"] * 2


def test_calls_on_the_class_alone_are_as_before() -> None:
    source = "from nv_attestation_sdk.attestation import Attestation\nAttestation.set_name('x')\n"
    assert verdicts(source)[2, "set_name()"] == "same"


def test_a_file_name_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\x1b[2Jb.py").write_text("import nv_attestation_sdk\n")
    assert main(["migrate", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "1 uses unchanged" in out
