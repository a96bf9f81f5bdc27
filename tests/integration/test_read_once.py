"""A live run reads each report, chain, RIM and answer once, and validates each chain once, though three parts look at
them: the plan of what to ask, the gathering, and the appraisal."""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvattest.evidence import dump_evidence
from nvattest.pki import certificate, chain, ocsp
from nvattest.rim import document
from nvattest.spdm import report
from nvattest.testing import Platform
from nvattest.testing.services import Services

NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def node() -> Platform:
    return Platform.build("hopper-8-ppcie")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, object]]:
    """How often each reader was called with each input, whoever called it."""
    import nvattest.cli.attest
    import nvattest.collateral.gather  # noqa: F401 - both import what is counted

    counter: Counter[tuple[str, object]] = Counter()

    def count(function: Callable[..., Any], word: str, key: Callable[..., object]) -> None:
        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            counter[word, key(*arguments)] += 1
            return function(*arguments, **named)

        for name, module in list(sys.modules.items()):
            if name.startswith("nvattest."):
                for attribute, value in list(vars(module).items()):
                    if value is function:
                        monkeypatch.setattr(module, attribute, counted)

    count(report.parse_report, "report", lambda data, *_: data)
    count(certificate.read_pem_block, "certificate", lambda text, *_: text)
    count(document.parse_rim, "RIM", lambda content, *_: content)
    count(ocsp.parse_ocsp_response, "answer", lambda content, *_: content)
    count(chain.validate_chain, "chain", lambda certificates, *_: tuple(item.sha256 for item in certificates))
    return counter


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


def check_once(node: Platform, calls: Counter[tuple[str, object]], answers: int) -> None:
    found = Counter(word for word, _ in calls)
    # One chain of each device and one of each RIM.
    assert (found["report"], found["RIM"], found["answer"], found["chain"]) == (12, 3, answers, 12 + 3)
    again = [key for key, times in calls.items() if times > 1]
    # The roots of --trust-anchors are read before the evidence, and stand at the end of its chains.
    assert [word for word, text in again if not (word == "certificate" and text in node.anchors_pem)] == []


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
