"""``nvattest doctor``: each line with its remedy, the schema, the bundle without secrets, and its time."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from nvattest._package import schema_bytes
from nvattest.cli import main
from nvattest.cli.doctor import (
    EARLIEST_CLOCK,
    Item,
    Machine,
    _ready,
    _state,
    contents,
    examine,
    public,
    reach,
    render,
    report_json,
    write_bundle,
)
from nvattest.devices.state import CpuCapability, Environment, MultiGpuMode, SystemState
from nvattest.report.terminal import Terminal, columns

LATER = EARLIEST_CLOCK + timedelta(days=30)


def machine(folder: Path, **settings: object) -> Machine:
    settings = {"root": str(folder), "nvml_path": str(folder / "no.so"), "clock": lambda: LATER, **settings}
    return Machine(**settings)  # type: ignore[arg-type]


def device(folder: Path, name: str, vendor: str, kind: str) -> None:
    place = folder / "sys/bus/pci/devices" / name
    place.mkdir(parents=True)
    (place / "vendor").write_text(f"{vendor}\n")
    (place / "class").write_text(f"{kind}\n")


def found(items: list[Item]) -> dict[str, Item]:
    return {item.id: item for item in items}


def test_a_machine_without_a_gpu_has_warnings_and_no_fault(tmp_path: Path) -> None:
    items = examine(machine(tmp_path))
    assert all(item.status != "fault" for item in items), items
    lines = found(items)
    assert lines["nvml"].status == "warning"
    assert "[nvml-missing]" in lines["nvml"].detail
    assert lines["cpu-tee"].status == "warning"
    assert all(item.remedy for item in items if item.status != "ok")


def test_inside_of_a_simulated_world_it_says_that_the_gpus_are_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVATTEST_SIM_SOCKET", raising=False)
    assert "simulation" not in found(examine(machine(tmp_path)))
    monkeypatch.setenv("NVATTEST_SIM_SOCKET", "@nobody")
    line = found(examine(machine(tmp_path)))["simulation"]
    assert line.status == "warning"
    assert "simulated: this proves nothing" in line.detail


def test_it_takes_less_than_two_seconds_without_a_driver(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    status = main(["doctor"])
    assert time.monotonic() - start < 2
    out = capsys.readouterr().out
    assert status in (0, 1)
    assert "faults" in out or "fault," in out
    assert max(columns(line) for line in out.split("\n")) <= 80


def test_a_gpu_on_the_bus_without_a_driver_is_a_fault(tmp_path: Path) -> None:
    device(tmp_path, "0000:01:00.0", "0x10de", "0x030200")
    device(tmp_path, "0000:02:00.0", "0x10de", "0x068000")
    device(tmp_path, "0000:03:00.0", "0x8086", "0x030000")
    lines = found(examine(machine(tmp_path)))
    assert lines["pci"].detail == "1 GPU and 1 NVSwitch"
    assert lines["kernel-driver"].status == "fault"
    assert lines["nvml"].status == "fault"
    assert lines["nscq"].status == "fault"


def test_the_versions_of_driver_and_switch_library_are_compared(tmp_path: Path) -> None:
    from nvattest.cli.doctor import _switch_library

    library = tmp_path / "libnvidia-nscq.so.615.71.09"
    library.touch()
    link = tmp_path / "libnvidia-nscq.so.2"
    link.symlink_to(library)
    where = machine(tmp_path, nscq_path=str(link))
    skewed = _switch_library(where, switches=4, driver="595.71.05")
    assert (skewed.status, "RDT" in skewed.remedy) == ("fault", True)
    assert _switch_library(where, switches=4, driver="615.71.09").status == "ok"


def test_a_clock_in_the_past_is_a_fault(tmp_path: Path) -> None:
    past = machine(tmp_path, clock=lambda: datetime(1970, 1, 1, tzinfo=timezone.utc))
    assert found(examine(past))["clock"].status == "fault"
    assert found(examine(machine(tmp_path)))["clock"].status == "ok"


def test_a_confidential_guest_without_configfs_is_warned(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags : fpu tdx_guest sse\n")
    lines = found(examine(machine(tmp_path)))
    assert lines["cpu-tee"].detail == "Intel TDX guest"
    assert lines["tsm"].status == "warning"
    (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
    assert found(examine(machine(tmp_path)))["tsm"].status == "ok"


def state(**changes: object) -> SystemState:
    values: dict[str, object] = {
        "driver_version": "590.12", "nvml_version": "13.590.12", "gpu_count": 8, "cc_feature": 1, "dev_tools": False,
        "environment": Environment.PRODUCTION, "multi_gpu_mode": MultiGpuMode.NONE, "ready": False,
        "cpu_capability": CpuCapability.INTEL_TDX, "gpus_capable": True,
    }  # fmt: skip
    return SystemState(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "id_", "status"),
    [
        ({}, "cc-mode", "ok"),
        ({"cc_feature": 0}, "cc-mode", "fault"),
        ({"cc_feature": 0, "multi_gpu_mode": MultiGpuMode.PROTECTED_PCIE}, "cc-mode", "ok"),
        ({"dev_tools": True}, "devtools", "fault"),
        ({"gpu_count": 0}, "gpu-count", "fault"),
        ({"multi_gpu_mode": 9}, "multi-gpu-mode", "warning"),
        ({"multi_gpu_mode": None}, "multi-gpu-mode", "ok"),
        ({"ready": True}, "ready-state", "warning"),
        ({"ready": False}, "ready-state", "warning"),
        ({"ready": None}, "ready-state", "ok"),
        ({"cpu_capability": None}, "cpu-capability", "ok"),
        ({"cpu_capability": 77}, "cpu-capability", "ok"),
    ],
)
def test_what_the_driver_says_becomes_a_line_with_a_remedy(changes: dict[str, object], id_: str, status: str) -> None:
    item = found(list(_state(state(**changes))))[id_]
    assert item.status == status
    assert status == "ok" or item.remedy


def test_not_ready_on_a_machine_without_cc_is_no_warning() -> None:
    assert _ready(state(cc_feature=0)).status == "ok"


def test_json_follows_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(json.loads(schema_bytes("doctor-1.json"))).validate(document)
    assert document["worst"] in ("ok", "warning", "fault")


SECRET = "hunter2-do-not-tell"


@pytest.mark.parametrize("name", ["support.tar.gz", "support.zip"])
def test_the_bundle_holds_the_findings_and_nothing_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("NVAT_SERVICE_KEY", SECRET)
    monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@proxy:3128")
    monkeypatch.setenv("NVATTEST_SOMETHING", SECRET)
    path = tmp_path / name
    main(["doctor", "--bundle", str(path)])
    assert SECRET not in capsys.readouterr().out
    assert path.stat().st_mode & 0o077 == 0
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            files = {entry: archive.read(entry) for entry in archive.namelist()}
    else:
        with tarfile.open(path) as packed:
            members = packed.getmembers()
            assert all(member.uname == "" and member.uid == 0 for member in members)
            files = {member.name: packed.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert "nvattest-support/doctor.json" in files
    assert "nvattest-support/README.txt" in files
    assert b"NVAT_SERVICE_KEY" in files["nvattest-support/doctor.txt"], "names of variables help, values do not"
    everything = b"".join(files.values())
    assert SECRET.encode() not in everything
    import socket

    host = socket.gethostname()
    assert len(host) < 4 or host.encode() not in everything


def test_a_bundle_of_another_kind_or_in_no_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--bundle", str(tmp_path / "x.rar")]) == 105
    assert main(["doctor", "--bundle", str(tmp_path / "no" / "x.zip")]) == 4
    assert "No such file" in capsys.readouterr().err


def test_the_same_findings_give_the_same_archive(tmp_path: Path) -> None:
    where = machine(tmp_path)
    items = [Item(id="a", group="g", status="ok", title="t", detail="d")]
    report = report_json(items, at="2026-12-01T00:00:00Z")
    for name in ("a.tar.gz", "b.tar.gz", "a.zip", "b.zip"):
        write_bundle(str(tmp_path / name), report, items, where)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert set(contents(report, items, where)) >= {"README.txt", "doctor.json", "doctor.txt", "packages.txt"}


def test_text_of_the_driver_cannot_control_the_terminal() -> None:
    item = Item(id="a", group="g", status="fault", title="\x1b[2Jt", detail="\x1b]0;x\x07", remedy="\u202er")
    text = render([item], Terminal())
    assert not set(text) & set("\x1b\x07\u202e")
    assert render([item], Terminal(unicode=False)).isascii()


# -- online


class Service(http.server.BaseHTTPRequestHandler):
    status = 404

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_service_that_answers_is_reached_and_one_that_does_not_is_a_fault(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    lines = found(
        reach({"RIM service": service, "OCSP service": "http://127.0.0.1:9", "NRAS": "not an address"}, seconds=3)
    )
    assert lines["rim-service"].status == "ok"
    assert lines["ocsp-service"].status == "fault"
    assert lines["nras"].status == "fault"
    assert lines["clock-skew"].status == "ok"


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_proxy")
def test_no_password_of_the_users_goes_to_a_service(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str | None] = []

    def answer(handler: Service) -> None:
        seen.append(handler.headers.get("Authorization"))
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(Service, "do_GET", answer)
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("NV_ATTESTATION_SERVICE_KEY", SECRET)
    assert found(reach({"NRAS": service}))["nras"].status == "ok"
    assert seen == [None]


@pytest.mark.usefixtures("no_proxy")
def test_the_roots_of_a_mirror_or_proxy_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import datetime, timezone

    from nvattest.testing.platform import Platform
    from nvattest.testing.services import Services

    platform = Platform.build("hopper-1", clock=datetime.now(timezone.utc))

    def online(*options: str) -> dict[str, dict[str, str]]:
        main(["doctor", "--online", "--json", *options])
        return {item["id"]: item for item in json.loads(capsys.readouterr().out)["items"]}

    with Services(platform, tls=True) as services:
        for name in ("RIM_SERVICE", "OCSP", "NRAS"):
            monkeypatch.setenv(f"NVAT_{name}_BASE_URL", services.nras_url)
        (tmp_path / "ca.pem").write_bytes(services.ca_pem)
        assert online("--tls-ca-cert", str(tmp_path / "ca.pem"))["nras"]["status"] == "ok"
        monkeypatch.setenv("NVATTEST_PCS_URL", services.nras_url)
        monkeypatch.setenv("NVATTEST_KDS_URL", services.nras_url)
        # The makers of CPUs are asked only where that is asked for.
        for named, options in ((set(), []), ({"intel-pcs", "amd-kds"}, ["--cpu-services"])):
            found = online("--tls-ca-cert", str(tmp_path / "ca.pem"), *options)
            assert found.keys() & {"intel-pcs", "amd-kds"} == named
            assert all(found[name]["status"] == "ok" for name in named)
        refused = online()["nras"]
        assert (refused["status"], "name its CA with --tls-ca-cert" in refused["detail"]) == ("fault", True)
        # Roots that are not there keep the doctor from nothing else.
        unread = online("--tls-ca-path", "/no/such/folder", "--tls-ca-cert", "/no/such/file")["nras"]
        assert (unread["status"], "/no/such/file" in unread["detail"]) == ("fault", True)


@pytest.mark.usefixtures("no_proxy")
def test_a_service_that_never_ends_its_answer_is_given_up(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def trickle(handler: Service) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not ended.wait(0.05):
                handler.wfile.write(b"x")
        handler.close_connection = True

    monkeypatch.setattr(Service, "do_GET", trickle)
    try:
        line = found(reach({"NRAS": service}, seconds=0.5))["nras"]
        assert (line.status, line.detail) == ("fault", f"{service}: no answer in 0.5 s")
    finally:
        ended.set()


def test_addresses_are_shown_without_passwords() -> None:
    assert public("https://user:secret@host:8443/path?key=secret#x") == "https://host:8443/path"
    assert "secret" not in public("https://user:secret@[bad")


def test_the_network_is_left_alone_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    main(["doctor"])
    assert "Network" not in capsys.readouterr().out


def test_progress_shows_nothing_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    from nvattest.cli.output import Progress

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("work", delay=0.0) as progress:
        progress.update("half")
    assert stream.getvalue() == ""


def test_progress_is_shown_on_a_terminal_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    from nvattest.cli.output import Progress

    shown = threading.Event()

    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            if "3 of 7" in text:
                shown.set()
            return super().write(text)

    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("asking", delay=0.0) as progress:
        progress.update("3 of 7")
        assert shown.wait(5)
    assert "asking: 3 of 7" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")
