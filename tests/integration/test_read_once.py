"""A live run reads each report, chain, RIM and answer once, and validates each chain once, though three parts look at
them: the plan of what to ask, the gathering, and the appraisal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvattest.evidence import dump_evidence
from nvattest.testing import Platform
from nvattest.testing.services import Services, wall_clock

from . import reading

NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def node() -> Platform:
    return Platform.build("hopper-8-ppcie")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word and a digest for each reading in this process."""
    import nvattest.cli.attest
    import nvattest.collateral.gather  # noqa: F401 - both import readers

    noted: list[str] = []
    for module, name, reader in list(reading.counted(noted.append)):
        monkeypatch.setattr(module, name, reader)
    return noted


@pytest.fixture
def command(node: Platform, tmp_path: Path) -> Iterator[Callable[..., tuple[int, int]]]:
    """Run a command on the evidence of all devices; its status, and the number of revocation answers that it got."""
    from nvattest.cli import main

    evidence, anchors = tmp_path / "evidence.json", tmp_path / "anchors.pem"
    evidence.write_text(json.dumps(dump_evidence(node.evidence(NONCE))))
    anchors.write_bytes(node.anchors_pem)
    with Services(node) as services:

        def run(*arguments: str) -> tuple[int, int]:
            status = main(
                [*(str(evidence) if item == "EVIDENCE" else item for item in arguments), "--trust-anchors", str(anchors),
                 "--at", node.time.device.isoformat(), "--rim-url", services.rim_url, "--ocsp-url", services.ocsp_url,
                 "--no-cache"]
            )  # fmt: skip
            return status, len(services.requests("ocsp"))

        yield run


def check_once(platform: Platform, calls: list[str], answers: int) -> None:
    counts = Counter(calls)
    found = Counter(line.split()[0] for line in counts)
    # One chain of each device and one of each RIM.
    assert (found["report"], found["RIM"], found["answer"], found["chain"]) == (12, 3, answers, 12 + 3)
    # The trust anchors are read before the evidence, and stand at the end of its chains.
    anchors = {
        f"certificate {reading.digest(block.partition(b'-----END')[0].lstrip())}"
        for block in platform.anchors_pem.split(b"-----BEGIN CERTIFICATE-----")
    }
    assert [line for line, times in counts.items() if times > 1 and line not in anchors] == []


def test_attest_reads_and_validates_everything_of_twelve_devices_once(node, calls, command, capsys) -> None:
    status, answers = command(
        "attest", "-d", "all", "--gpu-evidence-source", "file", "--gpu-evidence-file", "EVIDENCE",
        "--nvswitch-evidence-source", "file", "--nvswitch-evidence-file", "EVIDENCE", "--nonce", NONCE.hex(),
    )  # fmt: skip
    assert status == 0, capsys.readouterr().out
    check_once(node, calls, answers)


def test_a_bundle_that_is_fetched_and_verified_is_read_once(node, calls, command, tmp_path, capsys) -> None:
    status, answers = command(
        "bundle", "fetch", "--gpu-evidence-file", "EVIDENCE", "--output", str(tmp_path / "bundle.json")
    )
    assert status == 0, capsys.readouterr()
    check_once(node, calls, answers)


def test_a_hook_run_reads_and_validates_everything_of_twelve_devices_once(world, tmp_path) -> None:
    guest = world("hopper-8-ppcie", bundle=False)
    noted = tmp_path / "noted"
    begin = f"import sys\nsys.path.append({str(Path(reading.__file__).parent)!r})\nimport reading\n"
    program = guest.hook.read_text()
    guest.hook.write_text(program.replace("import sys\n", f"{begin}reading.into({str(noted)!r})\n", 1))
    with Services(guest.platform, now=wall_clock) as services:
        guest.configure(collateral={"network": True, "rim_url": services.rim_url, "ocsp_url": services.ocsp_url})
        guest.run()
        answers = len(services.requests("ocsp"))
    assert guest.ready == 1
    check_once(guest.platform, noted.read_text().splitlines(), answers)
