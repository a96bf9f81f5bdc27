"""What the simulated services can be told to do wrong: a fault that would change nothing is refused."""

from __future__ import annotations

import pytest

from nvattest.errors import InputError
from nvattest.testing.services import ServiceFault, ServiceFaultKind

_SERVICES = ("rim", "ocsp", "nras", "jwks")


@pytest.mark.parametrize(
    ("fault", "only"),
    [
        ("wrong-id", "rim"),
        ("wrong-sha256", "rim"),
        ("other-rim=NV_A", "rim"),
        ("other-certificate", "ocsp"),
        ("wrong-key", "nras"),
        ("other-nonce", "nras"),
        ("rotated-key", "jwks"),
    ],
)
def test_a_fault_of_one_service_s_answers_is_refused_for_the_others(fault: str, only: str) -> None:
    assert ServiceFault.parse(f"{only}:{fault}*2").service == only
    assert ServiceFault.parse(fault).service == ""
    for other in set(_SERVICES) - {only}:
        with pytest.raises(InputError, match=f"{other} cannot have the fault"):
            ServiceFault.parse(f"{other}:{fault}")


@pytest.mark.parametrize(
    "fault", ["slow=soon", "slow", "slow=-1", "status=abc", "status=9000", "trickle=x", "huge=x", "redirect"]
)
def test_a_value_that_the_fault_cannot_have_is_refused(fault: str) -> None:
    with pytest.raises(InputError, match="needs a value"):
        ServiceFault.parse(f"rim:{fault}")


def test_faults_of_the_wire_are_those_of_every_service() -> None:
    for service in _SERVICES:
        for fault in ("slow=0.5", "status=503", "rate-limited", "cut", "drop", "trickle=1", "huge", "html", "gzip"):
            assert ServiceFault.parse(f"{service}:{fault}").kind is ServiceFaultKind(fault.partition("=")[0])
