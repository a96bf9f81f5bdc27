"""The error tree, and NVIDIA's table of result codes."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

import nvattest
from nvattest import errors
from nvattest.errors import (
    CollateralError,
    CollectionError,
    InputError,
    NotTrustedError,
    NvattestError,
    ParseError,
    PolicyError,
    ResultCode,
    TokenError,
)

# Written out from NVIDIA's own table (nvattest CLI 1.2): code, text, and what a shell sees.
NVIDIA_TABLE = """
0|Ok|0
1|Unknown|1
2|Internal Error|2
3|Not initialized|3
4|Bad Argument|4
5|Allocation Failed|5
6|Feature is not enabled|6
7|XML Initialization Failed|7
10|LibXml2 Error|10
11|Relying Party Policy Mismatch|11
12|Overall Attestation Result is False|12
13|JSON Serialization Error|13
14|Cache Object Not Found|14
101|RIM Forbidden|101
102|RIM Internal Error|102
103|RIM Connection Error|103
104|RIM Not Found|104
105|RIM Invalid Signature|105
106|RIM Invalid Schema|106
107|RIM Measurement Not Found|107
108|RIM Measurement Conflict|108
201|OCSP Invalid Response|201
202|OCSP Server Error|202
203|OCSP Invalid Request|203
204|OCSP Status Not Good|204
205|OCSP Forbidden|205
301|Policy Evaluation Error|45
401|SPDM Parse Error|145
402|SPDM Opaque Data Parse Error|146
403|SPDM Measurement Record Parse Error|147
404|SPDM Request Parse Error|148
405|SPDM Field Not Found|149
500|NVML Initialization Failed|244
501|NVML Error|245
502|GPU Architecture Not Supported|246
503|GPU Evidence Invalid|247
504|GPU Evidence Nonce Mismatch|248
505|GPU Evidence Driver RIM Version Mismatch|249
506|GPU Evidence VBios RIM Version Mismatch|250
507|GPU Evidence FWID Mismatch|251
508|GPU Evidence Invalid Signature|252
509|GPU is neither in CC nor in PPCIe mode|253
510|GPU FW version exceeds SDK support|254
600|NSCQ Initialization Failed|88
601|NSCQ Error|89
602|NVSwitch Architecture Not Supported|90
603|NVSwitch Evidence Nonce Mismatch|91
604|NVSwitch Evidence VBIOS RIM Version Mismatch|92
605|NVSwitch Evidence FWID Mismatch|93
606|NVSwitch Evidence Invalid Signature|94
607|Corelib Initialization Failed|95
608|Corelib Error|96
700|NRAS Attestation Error|188
701|NRAS Token Invalid|189
702|NRAS Forbidden|190
800|Certificate FWID Not Found|32
801|Certificate Not Found|33
802|Certificate Chain Verification Failure|34
"""

# Codes that came with NVAT 2.0 and are not in the table above.
NEWER = {8, 15, 16, 17, 18, 19, 20, 21}

TABLE = [line.split("|") for line in NVIDIA_TABLE.strip().splitlines()]


def every_class() -> set[type[NvattestError]]:
    """The base and everything below it that errors.py defines."""
    found: set[type[NvattestError]] = set()
    ahead: list[type[NvattestError]] = [NvattestError]
    while ahead:
        kind = ahead.pop()
        if kind.__module__ == errors.__name__:
            found.add(kind)
            ahead += kind.__subclasses__()
    return found


def make(kind: type[NvattestError], message: str = "it broke", **arguments: object) -> NvattestError:
    if issubclass(kind, ParseError):
        arguments.setdefault("source", "report")
    return kind(message, **arguments)  # type: ignore[arg-type]


CONCRETE = sorted(every_class() - {NvattestError}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize(("number", "text", "status"), TABLE, ids=[row[0] for row in TABLE])
def test_a_code_has_the_text_and_the_exit_status_of_nvidias_table(number: str, text: str, status: str) -> None:
    code = ResultCode(int(number))
    assert (code.message, code.exit_status) == (text, int(status))


def test_the_codes_are_nvidias_and_no_others() -> None:
    assert {code.value for code in ResultCode} == {int(row[0]) for row in TABLE} | NEWER


@pytest.mark.parametrize("code", list(ResultCode), ids=lambda code: code.name)
def test_every_code_has_a_message_and_fits_an_exit_status(code: ResultCode) -> None:
    assert code.message.strip()
    assert code.exit_status == code.value % 256


def test_only_ok_looks_like_success_to_a_shell() -> None:
    assert [code for code in ResultCode if code.exit_status == 0] == [ResultCode.OK]


def test_no_two_codes_share_a_message() -> None:
    messages = [code.message for code in ResultCode]
    assert len(set(messages)) == len(messages)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( {4}[ │├└─]*)([A-Z]\w+Error)\b", line)
        if match is None:
            continue
        depth, name = len(match.group(1)), match.group(2)
        while path and path[-1][0] >= depth:
            path.pop()
        drawn[name] = path[-1][1] if path else None
        path.append((depth, name))
    real = {kind.__name__: None if kind is NvattestError else kind.__mro__[1].__name__ for kind in every_class()}
    assert drawn == real


def test_every_error_and_the_result_codes_are_public_names() -> None:
    assert {kind.__name__ for kind in every_class()} | {"ResultCode"} <= set(nvattest.__all__)


def test_the_abstract_base_refuses_to_be_raised() -> None:
    with pytest.raises(TypeError, match="abstract"):
        NvattestError("anything")


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_each_error_has_a_stable_code_of_its_own_and_a_result_that_is_not_success(kind: type[NvattestError]) -> None:
    error = make(kind)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
    assert error.result_code is not ResultCode.OK
    assert error.hint == ""
    assert [other for other in CONCRETE if other.default_code == kind.default_code] == [kind]


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_each_error_carries_what_it_is_given(kind: type[NvattestError]) -> None:
    error = make(kind, code="my-code", result_code=ResultCode.RIM_NOT_FOUND, hint="look there")
    assert (error.code, error.result_code, error.hint) == ("my-code", ResultCode.RIM_NOT_FOUND, "look there")
    assert str(error) == error.message
    assert "it broke" in error.message


def test_a_result_code_of_zero_is_kept_and_not_taken_for_missing() -> None:
    assert InputError("x", result_code=ResultCode.OK).result_code is ResultCode.OK


def test_a_parse_error_says_where() -> None:
    error = ParseError("no such tag", source="SPDM response", offset=17)
    assert (error.source, error.offset, str(error)) == ("SPDM response", 17, "SPDM response, byte 17: no such tag")


def test_a_parse_error_at_offset_zero_says_so() -> None:
    assert str(ParseError("empty", source="RIM", offset=0)) == "RIM, byte 0: empty"


def test_a_parse_error_without_offset_names_its_source_only() -> None:
    error = ParseError("not XML", source="RIM")
    assert (error.offset, str(error)) == (None, "RIM: not XML")


def test_a_parse_error_is_an_input_error() -> None:
    with pytest.raises(InputError):
        raise ParseError("x", source="y")


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_an_error_travels_between_processes_and_copies_whole(kind: type[NvattestError]) -> None:
    error = make(kind, code="my-code", result_code=ResultCode.RIM_NOT_FOUND, hint="look there")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - our own bytes
        assert type(other) is kind
        assert other.args == error.args
        assert vars(other) == vars(error)


@pytest.mark.parametrize(
    ("kind", "result_code"),
    [
        (InputError, 4),
        (ParseError, 16),
        (CollectionError, 501),
        (CollateralError, 102),
        (PolicyError, 301),
        (TokenError, 701),
        (NotTrustedError, 12),
    ],
)
def test_the_result_code_of_an_error_that_names_none(kind: type[NvattestError], result_code: int) -> None:
    assert make(kind).result_code == result_code
