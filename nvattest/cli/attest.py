"""``nvattest attest``: evidence and collateral from where the options say, one verification, one result."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from nvattest.cli import sources
from nvattest.cli.arguments import choice, converted, existing_file
from nvattest.errors import InputError, NvattestError, ResultCode
from nvattest.model import Nonce, VerificationTime

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
        "--trust-anchors", type=existing_file, default=os.environ.get("NVATTEST_TRUST_ANCHORS"), metavar="PEM",
        help="trust these roots instead of NVIDIA's; every output says so (NVATTEST_TRUST_ANCHORS)",
    )  # fmt: skip
    group.add_argument(
        "--simulate", nargs="?", const="hopper-8-ppcie", metavar="PLATFORM",
        help="attest a simulated platform (see nvattest simulate --list); proves nothing but that the program works",
    )  # fmt: skip
    group.add_argument(
        "--fault", action="append", default=[], metavar="TARGET:LIE", help="with --simulate: gpu0:measurement=9"
    )
    group.add_argument(
        "--claims-version", type=choice("3.0", "4.0"), default="4.0", metavar="VERSION",
        help="version of the GPU claims: 3.0 or 4.0 (the default)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Verify and print; the exit status is the result code modulo 256."""
    if options.simulate is None:
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

    if options.simulate is not None:
        return _simulate(options)
    nonce = sources.requester_nonce(options)
    evidence = sources.load_evidence_of(options, nonce)
    collateral = sources.load_collateral(options, evidence)
    verifier = Verifier(anchors=sources.trust_anchors(options))
    return verifier.appraise(evidence, nonce=nonce, collateral=collateral, at=options.at or now())


def _simulate(options: argparse.Namespace) -> Appraisal:
    """The one-word demonstration: simulated devices and collateral in this process; no GPU, no network, no compiler."""
    import json

    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import load_bundle
    from nvattest.evidence import load_evidence
    from nvattest.testing.platform import Platform

    nonce = Nonce.from_hex(options.nonce) if options.nonce else Nonce(os.urandom(32))
    platform = Platform.build(options.simulate, lies=options.fault)
    verifier = Verifier(anchors=platform.trust_anchors())
    return verifier.appraise(
        load_evidence(json.dumps(platform.evidence(nonce.value))),
        nonce=nonce,
        collateral=load_bundle(json.dumps(platform.bundle()), origin="simulated"),
        at=options.at or platform.time,
    )


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
