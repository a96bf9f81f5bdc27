"""``nvattest collect-evidence``: ask the devices and print what they gave, in the form that ``attest`` reads.

With ``--format coco`` it is device evidence as Confidential Containers exchange it.
"""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from nvattest._documents import JsonObject, load_json
from nvattest._text import hex_bytes
from nvattest.cli import requests, sources
from nvattest.cli.arguments import REQUIRED, VALIDATION, ArgumentError, Parser, input_file, output_file, read_input
from nvattest.cli.output import print_json, say, write_file
from nvattest.cli.requests import EvidenceSource
from nvattest.errors import CollectionError, InputError, NvattestError, ResultCode
from nvattest.evidence import (
    Evidence,
    EvidenceForm,
    additional_evidence,
    attester_json,
    cpu_report_data,
    device_nonce,
    device_report_data,
    dump_evidence,
)
from nvattest.model import DeviceKind

_COCO = "coco"
_MAXIMUM_RUNTIME_DATA = 64 * 1024
# The library for switches is not installed, or knows none.
_NO_SWITCH = ("nscq-missing", "no-switch")


class CocoRequest(NamedTuple):
    """What the devices shall answer, as report data or as the file from which it follows, and the file for KBS."""

    report_data: str
    runtime_data: str | None
    additional_evidence: str
    warn: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    requests.add_evidence_options(parser)
    group = parser.add_argument_group("Confidential Containers (--format coco)")
    group.add_argument(
        "--report-data", default="", metavar="HEX",
        help="what the devices are bound to, 1 to 64 bytes; they answer the first 32",
    )  # fmt: skip
    group.add_argument(
        "--runtime-data", type=input_file, metavar="FILE",
        help='JSON with "nonce" and "tee-pubkey" of the KBS handshake: gives the report data of devices and CPU',
    )  # fmt: skip
    group.add_argument(
        "--additional-evidence", type=output_file, default="", metavar="FILE",
        help="write the exact text that the CPU's quote covers and KBS gets",
    )  # fmt: skip
    if isinstance(parser, Parser):
        parser.more_formats = (_COCO,)


def run(options: argparse.Namespace) -> int:
    """Collect and print. JSON goes to stdout in all formats: evidence has no other form."""
    source = requests.evidence_source(options)
    coco = _coco_request(options)
    code, message, hint = ResultCode.OK, "", ""
    evidences: object = None
    try:
        if coco is not None:
            _collect_coco(source, coco)
            return ResultCode.OK.exit_status
        evidences = dump_evidence(_collect(source), form=EvidenceForm.ARRAY)
    except NvattestError as error:
        code, message, hint = error.result_code, str(error), error.hint
    if options.format == "json" or evidences is not None:
        result: JsonObject = {"evidences": evidences, "result_code": int(code), "result_message": code.message}
        if message:
            result["error"] = {"message": message, "hint": hint}
        print_json("collect-evidence", result)
    if message:
        say(f"Error {int(code):03d}: {code.message}: {message}", error=True)
        if hint:
            say(f"  next: {hint}", error=True)
    return code.exit_status


def _collect(source: EvidenceSource) -> tuple[Evidence, ...]:
    from nvattest.spdm.report import parse_report

    nonce, evidence = sources.nonce_and_evidence(source)
    # As NVIDIA's program does: evidence that answers another nonce is not handed on.
    for index, item in enumerate(evidence):
        if nonce is None or parse_report(item.report, item.kind).request.nonce != nonce.value:
            gpu = item.kind is DeviceKind.GPU
            raise InputError(
                f"item {index}: the report answers another nonce than the one that was asked for",
                code="nonce",
                result_code=ResultCode.GPU_EVIDENCE_NONCE_MISMATCH if gpu else ResultCode.SWITCH_NONCE_MISMATCH,
                hint="give the nonce of the recording (--nonce)",
            )
    return evidence


# --- Confidential Containers ------------------------------------------------------------------------------------------


def _coco_request(options: argparse.Namespace) -> CocoRequest | None:
    """The request of ``--format coco``, or None.

    Raises:
        ArgumentError: report data is missing, given twice or not hexadecimal, or belongs to another format.
    """
    request = requests.read(CocoRequest, options, warn=requests.warns(options))
    if options.format != _COCO:
        for name in ("report_data", "runtime_data", "additional_evidence"):
            if getattr(request, name):
                raise ArgumentError(f"--{name.replace('_', '-')}: only with --format {_COCO}", VALIDATION)
        return None
    if not request.report_data and not request.runtime_data:
        raise ArgumentError(f"--report-data is required with --format {_COCO}", REQUIRED)
    if request.report_data and request.runtime_data:
        raise ArgumentError("--runtime-data: excludes --report-data, which follows from it", VALIDATION)
    if options.nonce:
        raise ArgumentError("--nonce: the nonce follows from the report data with this format", VALIDATION)
    if request.report_data and not re.fullmatch(r"(0[xX])?([0-9A-Fa-f]{2}){1,64}", request.report_data):
        raise ArgumentError("--report-data: not 1 to 64 bytes as hexadecimal digits", VALIDATION)
    return request


def _collect_coco(source: EvidenceSource, request: CocoRequest) -> None:
    """Print the attester's JSON; the additional evidence goes into its file, the CPU's report data to stderr.

    Raises:
        InputError, CollectionError: as ``_collect``; or the runtime data cannot be read, or the file not written.
    """
    runtime = _runtime_data(request.runtime_data) if request.runtime_data is not None else None
    if runtime is not None:
        data = device_report_data(*runtime)
    else:
        data = hex_bytes(request.report_data) or b""
        if len(data) < 32 and request.warn:
            say(f"warning: report data of {len(data)} bytes, zeros follow as guest-components has it", error=True)
    evidence = _collect_with_or_without_switches(source._replace(nonce=device_nonce(data).hex()))
    text = additional_evidence(evidence)
    if request.additional_evidence:
        # No newline: the digest is over these bytes and no others.
        write_file(request.additional_evidence, text, mode=0o600)
    print(attester_json(evidence))
    if runtime is not None:
        say(f"report data for the CPU's quote: {cpu_report_data(*runtime, text).hex()}", error=True)


def _collect_with_or_without_switches(source: EvidenceSource) -> tuple[Evidence, ...]:
    """With ``--device all`` a guest need not have switches, as in guest-components.

    A switch that is there and gives no evidence stops it all the same: to the verifier the two would look alike.
    """
    if len(source.kinds) == 1:
        return _collect(source)
    gpus = _collect(source._replace(kinds=(DeviceKind.GPU,)))
    try:
        return gpus + _collect(source._replace(kinds=(DeviceKind.NVSWITCH,)))
    except CollectionError as error:
        if error.code not in _NO_SWITCH:
            raise
        say(f"no NVSwitch in this evidence: {error}", error=True)
        return gpus


def _runtime_data(path: str) -> tuple[str, JsonObject]:
    data = read_input(path, _MAXIMUM_RUNTIME_DATA)
    document = load_json(data, source=path, maximum=_MAXIMUM_RUNTIME_DATA, file=True)
    nonce = document.get("nonce") if isinstance(document, dict) else None
    key = document.get("tee-pubkey") if isinstance(document, dict) else None
    if not isinstance(nonce, str) or not isinstance(key, dict) or not key:
        raise InputError(
            f'{path}: expected an object with the text "nonce" and the object "tee-pubkey"', code="runtime-data"
        )
    return nonce, key
