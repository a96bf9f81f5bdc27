"""The cache between processes: two that fill it at once, and one cut off at any byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.cache import DiskCache
from nvattest.collateral.gather import GatherOptions, gather
from nvattest.model import Nonce
from nvattest.testing import Platform
from nvattest.testing.services import Services

NONCE = bytes(range(32))

# Two of these run at once on one cache; each does its work several times over.
FILL = """
import json, sys
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.cache import DiskCache
from nvattest.collateral.gather import gather
from nvattest.collateral.gather import GatherOptions
from nvattest.evidence import load_evidence
from nvattest.model import Nonce
from nvattest.testing import Platform
url, folder = sys.argv[1:]
platform = Platform.build("hopper-8-ppcie")
evidence = platform.evidence(bytes(range(32)))
sys.stdin.readline()
for _ in range(4):
    verifier = Verifier(anchors=platform.trust_anchors())
    cache = DiskCache(folder, now=lambda: platform.clock)
    options = GatherOptions(rim_url=url, ocsp_url=url + "/ocsp", cache=cache)
    found = gather(evidence, options, at=platform.time, verifier=verifier)
    done = verifier.appraise(evidence, nonce=Nonce(bytes(range(32))), collateral=found, at=platform.time)
    assert done.trusted, done.failures
    # Write everything again.
    for rim_id, rim in found.rims.items():
        assert cache.store_rim(rim_id, rim.content)
print("trusted")
"""


def test_two_processes_fill_one_cache_at_once(tmp_path) -> None:
    node = Platform.build("hopper-8-ppcie")
    folder = str(tmp_path / "cache")
    with Services(node) as services:
        command = [sys.executable, "-c", FILL, services.url, folder]
        both = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in both:
            out, err = process.communicate(timeout=60)
            assert out == "trusted\n", err
        services.forget()
        verify(node, services, folder)
        assert services.log == []
    names = [path.name for path in Path(folder).rglob("*") if path.is_file()]
    assert len([name for name in names if name.endswith(".json")]) == 25
    assert not [name for name in names if name.endswith(".new")]


def verify(platform, services, folder) -> bool:
    verifier = Verifier(anchors=platform.trust_anchors())
    evidence = platform.evidence(NONCE)
    options = GatherOptions(
        rim_url=services.rim_url,
        ocsp_url=services.ocsp_url,
        cache=DiskCache(folder, now=lambda: platform.clock),
    )
    found = gather(evidence, options, at=platform.time, verifier=verifier)
    return verifier.appraise(evidence, nonce=Nonce(NONCE), collateral=found, at=platform.time).trusted


@pytest.fixture(scope="module")
def one() -> Platform:
    return Platform.build("hopper-1")


def cut(one, folder, choose) -> None:
    with Services(one) as services:
        assert verify(one, services, folder)
        entries = sorted(Path(folder).rglob("*.json"))
        assert len(entries) == 9
        for path in entries:
            whole = path.read_bytes()
            for size in choose(len(whole)):
                path.write_bytes(whole[:size])
                services.forget()
                assert verify(one, services, folder)
                # What was damaged was asked for again, alone, and is whole again.
                assert len(services.log) == 1
                assert json.loads(path.read_bytes())["content"] == json.loads(whole)["content"] or "ocsp" in path.parts


def test_a_cache_cut_at_some_byte_heals(one, tmp_path) -> None:
    cut(
        one,
        str(tmp_path / "cache"),
        lambda size: [0, size // 2, size - 2],
    )


@pytest.mark.exhaustive
def test_no_entry_cut_at_any_byte_is_read(one, tmp_path) -> None:
    folder = str(tmp_path / "cache")
    with Services(one) as services:
        assert verify(one, services, folder)
    cache = DiskCache(folder, now=lambda: one.clock)
    for path in sorted(Path(folder).rglob("*.json")):
        whole = path.read_bytes()
        for size in range(len(whole) - 1, -1, -1):
            os.truncate(path, size)
            assert not (cache.rims(path.name.partition("@")[0]) if "@" in path.name else cache.answer(path.stem))


@pytest.mark.parametrize("part", ["rims", "ocsp"])
def test_contents_exchanged_between_files_are_found_out(one, tmp_path, part) -> None:
    folder = str(tmp_path / "cache")
    with Services(one) as services:
        assert verify(one, services, folder)
        first, second = sorted((Path(folder) / part).glob("*.json"))[:2]
        a, b = first.read_bytes(), second.read_bytes()
        first.write_bytes(b)
        second.write_bytes(a)
        services.forget()
        assert verify(one, services, folder)
        assert len(services.log) == 2
