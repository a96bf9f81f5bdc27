"""A live run reads each report, chain, RIM and answer once, and validates each chain once, though three parts look at
them: the plan of what to ask, the gathering, and the appraisal."""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from collections.abc import Callable
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


def attest(node: Platform, services: Services, folder: Path, *more: str) -> int:
    from nvattest.cli import main

    evidence = folder / "evidence.json"
    evidence.write_text(json.dumps(dump_evidence(node.evidence(NONCE))))
    anchors = folder / "anchors.pem"
    anchors.write_bytes(node.anchors_pem)
    return main(
        ["attest", "-d", "all", "--gpu-evidence-source", "file", "--gpu-evidence-file", str(evidence),
         "--nvswitch-evidence-source", "file", "--nvswitch-evidence-file", str(evidence), "--nonce", NONCE.hex(),
         "--trust-anchors", str(anchors), "--at", str(node.time.device.isoformat()), "--rim-url", services.rim_url,
         "--ocsp-url", services.ocsp_url, *more]
    )  # fmt: skip


def test_a_live_run_of_twelve_devices_reads_and_validates_everything_once(node, calls, tmp_path, capsys) -> None:
    with Services(node) as services:
        assert attest(node, services, tmp_path, "--no-cache") == 0, capsys.readouterr().out
    found = Counter(word for word, _ in calls)
    assert found["report"] == 12
    assert found["RIM"] == 3
    assert found["answer"] == len(services.requests("ocsp"))
    # One chain of each device and one of each RIM.
    assert found["chain"] == 12 + 3
    again = [key for key, times in calls.items() if times > 1]
    # The roots of --trust-anchors are read before the evidence, and stand at the end of its chains.
    assert [word for word, text in again if not (word == "certificate" and text in node.anchors_pem)] == []
