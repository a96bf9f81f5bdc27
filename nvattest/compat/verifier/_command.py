"""``python -m verifier.cc_admin``: the old command, with its options, its last line and its exit statuses.

0: every GPU is trusted. 1: anything else. 2: a wrong option.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nvattest._streams import give_up_stdout, open_closed_streams
from nvattest._text import joined


def main(argv: Sequence[str] | None = None) -> int:
    """Collect from this machine's GPUs, verify, set the ready state unless ``--user_mode``, and say the result."""
    if argv is None:
        open_closed_streams()
    from nvattest.compat._engine import CLAIMS_VERSIONS

    options = _parser(CLAIMS_VERSIONS).parse_args(argv)
    try:
        status = _attest(options)
        sys.stdout.flush()
    except OSError as error:
        # Errors of files are those of the package; this is stdout, whose reader went away or whose disk is full.
        give_up_stdout()
        print(f"the result could not be written: {error.strerror or error}", file=sys.stderr)
        return 1
    return status


def _attest(options: argparse.Namespace) -> int:
    from nvattest.compat._engine import new_nonce
    from nvattest.compat.verifier import cc_admin
    from nvattest.errors import NvattestError

    nonce = options.nonce or new_nonce()
    params = {
        "verbose": True,
        "test_no_gpu": options.test_no_gpu,
        "driver_rim": options.driver_rim,
        "vbios_rim": options.vbios_rim,
        "user_mode": options.user_mode,
        "rim_service_url": options.rim_service_url,
        "allow_hold_cert": True if options.allow_hold_cert else None,
        "ocsp_url": options.ocsp_url,
        "ocsp_nonce_disabled": options.ocsp_nonce_disabled,
        "service_key": options.service_key,
        "claims_version": options.claims_version,
    }
    try:
        if options.rim_root_cert:
            print("--rim_root_cert has no effect, as before: NVIDIA's roots are built in", file=sys.stderr)
        evidence = cc_admin.collect_gpu_evidence(nonce, options.test_no_gpu, True)
        return 0 if cc_admin.attest(params, nonce, evidence)[0] else 1
    except NvattestError as error:
        print(joined([str(error), *([f"  {error.hint}"] if error.hint else [])]), file=sys.stderr)
        # The line that scripts look for; attest prints it where it came to a verdict.
        print("GPU Attestation failed.")
        return 1


def _parser(versions: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="verifier.cc_admin", allow_abbrev=False)
    parser.add_argument("-v", "--verbose", action="store_true", help="accepted; the steps are printed in any case")
    parser.add_argument("--test_no_gpu", action="store_true", help="a simulated GPU, which is refused")
    parser.add_argument("--driver_rim", metavar="FILE", help="the driver's RIM, instead of asking the service")
    parser.add_argument("--vbios_rim", metavar="FILE", help="the same for the VBIOS")
    parser.add_argument("--user_mode", action="store_true", help="leave the ready state of the GPUs alone")
    parser.add_argument("--allow_hold_cert", action="store_true", help="accept certificates on hold")
    parser.add_argument("--service_key", metavar="KEY", help="key for NVIDIA's services (better in the environment)")
    parser.add_argument("--nonce", metavar="HEX", help="64 hexadecimal digits; random by default")
    parser.add_argument("--rim_root_cert", metavar="FILE", help="accepted and not used, as before")
    parser.add_argument("--rim_service_url", metavar="URL")
    parser.add_argument("--ocsp_url", metavar="URL")
    parser.add_argument("--ocsp_nonce_disabled", action="store_true", help="accept revocation answers without a nonce")
    parser.add_argument("--claims_version", choices=versions, default=versions[0])
    return parser
