"""``nvattest attest``: evidence and collateral from where the options say, one verification, one result."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nvattest.cli import sources
from nvattest.cli.arguments import choice, converted, existing_file
from nvattest.errors import InputError, NvattestError, ResultCode
from nvattest.model import VerificationTime

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal

# The codes at which NVIDIA's program prints claims: the devices were judged, whatever the judgement.
_JUDGED = (ResultCode.OK, ResultCode.RP_POLICY_MISMATCH, ResultCode.OVERALL_RESULT_FALSE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    sources.add_evidence_options(parser)
    sources.add_collateral_options(parser)
    group = parser.add_argument_group("verification")
    group.add_argument(
        "--at", type=converted(VerificationTime.parse), metavar="TIME",
        help="judge validity at this time, or device=TIME,rim=TIME; now by default",
    )  # fmt: skip
    group.add_argument(
        "--trust-anchors", type=existing_file, metavar="PEM",
        help="trust these roots instead of NVIDIA's; every output says so",
    )  # fmt: skip
    group.add_argument(
        "--claims-version", type=choice("3.0", "4.0"), default="4.0", metavar="VERSION",
        help="version of the GPU claims: 3.0 or 4.0 (the default)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Verify and print; the exit status is the result code modulo 256."""
    sources.check_evidence_options(options)
    if options.gpu_evidence_source == "corelib" and options.device in ("gpu", "all"):
        return _report_error(
            InputError(
                "corelib evidence can be collected, not attested", hint="use --gpu-evidence-source nvml or file"
            ),
            options,
        )
    try:
        appraisal = _appraise(options)
    except NvattestError as error:
        return _report_error(error, options)
    _print(appraisal, options)
    return appraisal.result_code.exit_status


def _appraise(options: argparse.Namespace) -> Appraisal:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.session import now

    nonce = sources.requester_nonce(options)
    evidence = sources.load_evidence_of(options, nonce)
    collateral = sources.load_collateral(options, evidence)
    verifier = Verifier(anchors=sources.trust_anchors(options))
    return verifier.appraise(evidence, nonce=nonce, collateral=collateral, at=options.at or now())


def _print(appraisal: Appraisal, options: argparse.Namespace) -> None:
    if options.format == "json":
        from nvattest._json import dump_json
        from nvattest.appraisal.serialize import appraisal_to_json
        from nvattest.claims import claims_of

        code = appraisal.result_code
        print(
            dump_json(
                {
                    "result_code": int(code),
                    "result_message": code.message,
                    "claims": claims_of(appraisal, version=options.claims_version) if code in _JUDGED else {},
                    "detached_eat": None,
                    "appraisal": appraisal_to_json(appraisal),
                }
            )
        )
    else:
        from nvattest.cli.output import render_appraisal

        print(render_appraisal(appraisal))


def _report_error(error: NvattestError, options: argparse.Namespace) -> int:
    """A failure before anything could be judged: in the chosen format, and never an empty stdout."""
    code = error.result_code
    if options.format == "json":
        from nvattest._json import dump_json

        print(
            dump_json(
                {
                    "result_code": int(code),
                    "result_message": code.message,
                    "claims": {},
                    "detached_eat": {},
                    "error": {"code": error.code, "message": str(error), "hint": error.hint},
                }
            )
        )
    else:
        print(f"Result: NOT TRUSTED, code {int(code)} ({code.message})\n  {error}")
        if error.hint:
            print(f"  next: {error.hint}")
    print(f"Error {int(code):03d}: {code.message}", file=sys.stderr)
    return code.exit_status or ResultCode.UNKNOWN.exit_status
