"""What is known of the agents: their versions, and what their line in the kernel log means."""

from __future__ import annotations

import itertools

import pytest

from nvattest.guest.check import GENERATIONS, generation_of, kernel_log_failure, version_of

HOOK = "/run/kata-extensions/nvattest/usr/share/oci/hooks/prestart/nvattest-hook"


def test_generations_follow_each_other_without_a_gap_or_an_overlap() -> None:
    for before, after in itertools.pairwise(GENERATIONS):
        assert before.first <= before.last < after.first
        assert after.first == (before.last[0], before.last[1] + 1) or after.first == (before.last[0] + 1, 0)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ((2, 5), "3.0"), ((3, 0), "3.0"), ((3, 1), "3.1 to 3.7"), ((3, 7), "3.1 to 3.7"), ((3, 8), "3.8 to 3.32"),
        ((3, 32), "3.8 to 3.32"), ((4, 0), "4.0 and 4.1"), ((4, 1), "4.0 and 4.1"), ((4, 9), "4.0 and 4.1"),
    ],
)  # fmt: skip
def test_a_version_is_of_the_generation_that_began_last(version: tuple[int, int], name: str) -> None:
    assert generation_of(version).name == name


def test_from_3_1_on_nothing_promises_an_exit_status() -> None:
    for generation in GENERATIONS:
        assert generation.obeys_status == (generation.first < (3, 1))
        assert ("the exit status is lost" in generation.promise) == (not generation.obeys_status)
        assert "ready state" in generation.promise


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("kata-agent version 4.1.0 (api version: 0.0.1, commit version: 7c6ba40, type: rust)", (4, 1)),
        ("Kata Containers Agent\n kata-agent: 3.32.0\n", (3, 32)),
        ("kata-agent v3.0.2", (3, 0)),
        ("bash 5.2.15", None),
        ("kata-agent version unknown", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_what_the_agent_prints(text: str, version: tuple[int, int] | None) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("error", "severity"),
    [
        (f'no exit code for hook Hook {{ path: "{HOOK}" }}: Undetermined', "ok"),
        ("timed out", "error"),
        (f'communicate hook Hook {{ path: "{HOOK}" }}: broken pipe', "error"),
        (f'hook Hook {{ path: "{HOOK}" }} exit status with 1', "warning"),
        (f'failed to create subprocess for hook Hook {{ path: "{HOOK}" }}: No such file', "error"),
        ("something new", "error"),
    ],
)
def test_the_agent_s_line_means_what_its_error_says(error: str, severity: str) -> None:
    found = kernel_log_failure(f"3,1204,12345678,-;kata-agent: hook failed: {HOOK}: {error}")
    assert found is not None
    assert found[0] == severity


def test_lines_about_other_hooks_and_our_own_lines_are_not_about_us() -> None:
    assert kernel_log_failure("kata-agent: hook failed: /usr/share/oci/hooks/prestart/other: timed out") is None
    assert kernel_log_failure("<3>nvattest-hook: attestation failed, GPUs not ready") is None
