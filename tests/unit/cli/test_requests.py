"""Typed requests: what the options of a command become, once."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from nvattest.cli import command_parser
from nvattest.cli.arguments import ArgumentError, read
from nvattest.cli.attest import BindingRequest, requested_binding
from nvattest.cli.collect import evidence_source
from nvattest.cli.sources import Access, collateral_source, services
from nvattest.errors import InputError
from nvattest.model import DeviceKind


def attest(*words: str) -> argparse.Namespace:
    return command_parser("attest").parse_args(words)


def test_a_named_file_is_the_source_and_the_other_kind_is_live() -> None:
    source = evidence_source(attest("-d", "all", "--gpu-evidence-file", __file__))
    assert source.kinds == (DeviceKind.GPU, DeviceKind.NVSWITCH)
    assert source.files == {DeviceKind.GPU: __file__}
    assert source.live
    assert not source._replace(kinds=(DeviceKind.GPU,)).live


def test_a_file_of_a_kind_that_is_not_asked_for_is_no_source() -> None:
    assert evidence_source(attest("--nvswitch-evidence-file", "/no/such")).files == {}
    with pytest.raises(ArgumentError):
        evidence_source(attest("-d", "nvswitch", "--nvswitch-evidence-file", "/no/such"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), False), (("--rim-dir", "."), True), (("--rim-store", "dir"), True),
        (("--rim-dir", ".", "--rim-store", "remote"), False),
    ],
)  # fmt: skip
def test_a_folder_without_a_store_is_the_store(words: tuple[str, ...], named: bool) -> None:
    assert (collateral_source(attest(*words)).rim_dir is not None) is named


def test_what_the_command_line_names_differs_from_what_a_variable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVAT_RIM_SERVICE_BASE_URL", "https://mirror.example")
    assert services(attest()).rim_url == "https://mirror.example"
    assert services(attest()).named == []
    assert services(attest("--rim-url", "https://mirror.example")).named == ["--rim-url"]


def test_a_request_does_not_show_the_service_key() -> None:
    found = services(attest("--service-key", "secret-of-the-service"))
    assert found.access.service_key == "secret-of-the-service"
    assert "secret-of-the-service" not in repr(found)


def test_a_request_cannot_be_changed(tmp_path: Path) -> None:
    access = read(Access, attest("--tls-ca-path", str(tmp_path)))
    with pytest.raises(AttributeError):
        access.tls_ca_path = None  # type: ignore[misc]


@pytest.mark.parametrize("words", [("--challenge", "c0ffee"), ("--bind-tee", "quote"), ("--extend-rtmr", "2")])
def test_any_option_of_a_binding_asks_for_one(words: tuple[str, ...]) -> None:
    assert requested_binding(read(BindingRequest, attest()), "", None) is None
    with pytest.raises(InputError) as caught:
        requested_binding(read(BindingRequest, attest(*words)), "", None)
    assert caught.value.code == "binding"
