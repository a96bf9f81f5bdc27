"""The error catalogue: nothing without an entry, every entry readable, the docs' table generated from it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import nvattest
from nvattest import errors
from nvattest.appraisal.check import CHECKS
from nvattest.appraisal.inputs import EvidencePolicy
from nvattest.cli import COMMANDS
from nvattest.errors import NvattestError, ResultCode
from nvattest.guest.check import kernel_log_failure
from nvattest.report.catalogue import (
    DOCUMENT,
    CatalogueEntry,
    codes_of_status,
    entries,
    find_entry,
    markdown,
    render_entry,
    similar,
)
from nvattest.report.terminal import Terminal, columns
from nvattest.token.claims import ANOTHER_TIME, OVERRIDE

ROOT = Path(nvattest.__file__).resolve().parent.parent


@pytest.mark.parametrize("code", list(ResultCode), ids=lambda code: code.name)
def test_every_result_code_has_an_entry_under_its_number_and_its_name(code: ResultCode) -> None:
    entry = find_entry(str(int(code)))
    assert entry is not None
    assert (entry.kind, entry.name, entry.title) == ("code", code.name, code.message)
    assert find_entry(code.name) is entry


@pytest.mark.parametrize("check", list(CHECKS))
def test_every_check_has_an_entry(check: str) -> None:
    entry = find_entry(check)
    assert entry is not None
    assert (entry.kind, entry.key) == ("check", check)


def test_every_error_class_has_an_entry_under_its_word_and_its_name() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NvattestError)]
    assert len(classes) >= 8
    for kind in classes:
        assert find_entry(kind.default_code) is not None, kind
        assert find_entry(kind.__name__) is not None, kind


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.key)
def test_an_entry_is_complete_and_fits_a_page(entry: CatalogueEntry) -> None:
    assert entry.title
    assert len(entry.meaning) > 20
    assert entry.causes
    assert entry.actions
    text = render_entry(entry, Terminal(width=80))
    lines = text.split("\n")
    assert len(lines) <= 60
    assert max(columns(line) for line in lines) <= 80
    for word in entry.see:
        assert find_entry(word) is not None, word


def test_keys_are_unique_and_the_words_of_families_do_not_overlap() -> None:
    keys = [(entry.kind, entry.key) for entry in entries()]
    assert len(keys) == len(set(keys))
    covered = [word for entry in entries() for word in entry.covers]
    assert len(covered) == len(set(covered))


def test_every_command_that_an_entry_names_exists() -> None:
    for entry in entries():
        for action in entry.actions:
            if action.startswith("$ nvattest "):
                name = action.split()[2]
                assert name in COMMANDS or name == "COMMAND", (entry.key, action)


def test_every_weakening_that_an_output_names_is_explained() -> None:
    options = {field.name for field in fields(EvidencePolicy) if field.name.startswith(("accept_", "allow_"))}
    for name in (*options, "max_trailing_bytes", OVERRIDE, ANOTHER_TIME):
        entry = find_entry(name)
        assert entry is not None, name
        assert entry.key == "weakened"


def test_the_document_is_the_generated_one() -> None:
    path = ROOT / DOCUMENT
    if not path.parent.is_dir():
        pytest.skip("installed without its examples")
    assert path.read_text(encoding="utf-8") == markdown(), f"write {DOCUMENT} again: make catalogue"


def test_words_are_found_in_any_case_and_with_zeros() -> None:
    assert find_entry("RIM_not_found") is find_entry("104") is find_entry(" 0104 ")
    assert find_entry("Measurements") is find_entry("measurements")
    assert find_entry("CC-OFF") is not None
    assert find_entry("no such word") is None
    # More digits than Python makes a number of.
    assert find_entry("1" * 5000) is None
    assert find_entry("²") is None
    assert "measurements" in similar("measurments")


def test_a_line_of_the_kernel_log_that_misleads_is_known_by_its_words() -> None:
    line = (
        "[   12.3] kata-agent: hook failed: /usr/share/oci/hooks/prestart/nvattest-hook: no exit code for hook "
        'Hook { path: "/usr/share/oci/hooks/prestart/nvattest-hook" }: Undetermined'
    )
    entry = find_entry(line)
    assert entry is find_entry("hook-log")
    assert entry is not None
    assert "Harmless" in entry.causes[0]
    assert "was killed" in entry.causes[1]
    # Each meaning is the one that hook check finds in the line.
    assert kernel_log_failure(line) is not None
    assert find_entry("some other line: hook succeeded") is None


def test_802_tells_the_result_code_from_the_error_of_cuda() -> None:
    entry = find_entry("802")
    assert entry is not None
    text = render_entry(entry, Terminal())
    assert "CERT_CHAIN_VERIFICATION_FAILURE" in text
    assert "CUDA's error 802" in text
    assert "nvattest hook status" in text


def test_an_exit_status_that_stands_for_several_codes_says_so() -> None:
    assert ResultCode.NRAS_ATTESTATION_ERROR.exit_status == 700 % 256
    assert all(code.exit_status == 12 for code in codes_of_status(12))
    entry = find_entry("700")
    assert entry is not None
    assert f"exit status {700 % 256}" in render_entry(entry, Terminal())
