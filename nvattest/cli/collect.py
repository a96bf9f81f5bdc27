"""``nvattest collect-evidence``: ask the devices and print what they gave, in the form that ``attest`` reads."""

from __future__ import annotations

import argparse
import sys

from nvattest.cli import sources
from nvattest.errors import InputError, NvattestError, ResultCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    sources.add_evidence_options(parser)


def run(options: argparse.Namespace) -> int:
    """Collect and print. JSON goes to stdout in both formats: evidence has no other form."""
    sources.check_evidence_options(options)
    code, message, hint, evidences = ResultCode.OK, "", "", None
    try:
        evidences = _collect(options)
    except NvattestError as error:
        code, message, hint = error.result_code, str(error), error.hint
    if options.format == "json" or evidences is not None:
        from nvattest._json import dump_json

        result: dict[str, object] = {
            "evidences": evidences,
            "result_code": int(code),
            "result_message": code.message,
        }
        if message:
            result["error"] = {"message": message, "hint": hint}
        print(dump_json(result))
    if message:
        print(f"Error {int(code):03d}: {code.message}: {message}", file=sys.stderr)
        if hint:
            print(f"  next: {hint}", file=sys.stderr)
    return code.exit_status


def _collect(options: argparse.Namespace) -> object:
    from nvattest.evidence import EvidenceForm, dump_evidence
    from nvattest.model import DeviceKind
    from nvattest.spdm.report import parse_report

    nonce = sources.requester_nonce(options)
    evidence = sources.load_evidence_of(options, nonce)
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
    return dump_evidence(evidence, form=EvidenceForm.ARRAY)
