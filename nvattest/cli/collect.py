"""``nvattest collect-evidence``: ask the devices and print what they gave, in the form that ``attest`` reads."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nvattest.cli import coco, sources
from nvattest.cli.arguments import Parser
from nvattest.cli.output import say
from nvattest.errors import InputError, NvattestError, ResultCode

if TYPE_CHECKING:
    from nvattest.evidence import Evidence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    sources.add_evidence_options(parser)
    coco.add_options(parser)
    if isinstance(parser, Parser):
        parser.more_formats = (coco.FORMAT,)


def run(options: argparse.Namespace) -> int:
    """Collect and print. JSON goes to stdout in all formats: evidence has no other form."""
    sources.check_evidence_options(options)
    coco.check_options(options)
    code, message, hint = ResultCode.OK, "", ""
    evidences: object = None
    try:
        if options.format == coco.FORMAT:
            options.nonce = coco.nonce_of(options)
            coco.print_evidence(coco.collect(options, _collect), options)
            return ResultCode.OK.exit_status
        from nvattest.evidence import EvidenceForm, dump_evidence

        evidences = dump_evidence(_collect(options), form=EvidenceForm.ARRAY)
    except NvattestError as error:
        code, message, hint = error.result_code, str(error), error.hint
    if options.format == "json" or evidences is not None:
        from nvattest._documents import dump_json

        result: dict[str, object] = {
            "evidences": evidences,
            "result_code": int(code),
            "result_message": code.message,
        }
        if message:
            result["error"] = {"message": message, "hint": hint}
        print(dump_json(result))
    if message:
        say(f"Error {int(code):03d}: {code.message}: {message}", error=True)
        if hint:
            say(f"  next: {hint}", error=True)
    return code.exit_status


def _collect(options: argparse.Namespace) -> tuple[Evidence, ...]:
    from nvattest.model import DeviceKind
    from nvattest.spdm.report import parse_report

    nonce, evidence = sources.nonce_and_evidence(options)
    # As NVIDIA's program does: evidence that answers another nonce is not handed on.
    for index, item in enumerate(evidence):
        if nonce is None or parse_report(item.report, item.kind).request.nonce != nonce.value:
            raise InputError(
                f"item {index}: the report answers another nonce than the one that was asked for",
                code="nonce",
                result_code=ResultCode.GPU_EVIDENCE_NONCE_MISMATCH
                if item.kind is DeviceKind.GPU
                else ResultCode.SWITCH_NONCE_MISMATCH,
                hint="give the nonce of the recording (--nonce)",
            )
    return evidence
