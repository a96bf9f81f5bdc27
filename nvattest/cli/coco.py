"""``nvattest collect-evidence --format coco``: device evidence as Confidential Containers exchange it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from nvattest.cli.arguments import REQUIRED, VALIDATION, ArgumentError, existing_file
from nvattest.cli.output import say
from nvattest.errors import CollectionError, InputError

if TYPE_CHECKING:
    from nvattest._documents import JsonObject
    from nvattest.evidence import Evidence

FORMAT = "coco"
_MAXIMUM_RUNTIME_DATA = 64 * 1024
# The library for switches is not installed, or knows none.
_NO_SWITCH = ("nscq-missing", "no-switch")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the devices shall answer, and where the additional evidence goes."""
    group = parser.add_argument_group("Confidential Containers (--format coco)")
    group.add_argument(
        "--report-data", default="", metavar="HEX",
        help="what the devices are bound to, 1 to 64 bytes; they answer the first 32",
    )  # fmt: skip
    group.add_argument(
        "--runtime-data", type=existing_file, metavar="FILE",
        help='JSON with "nonce" and "tee-pubkey" of the KBS handshake: gives the report data of devices and CPU',
    )  # fmt: skip
    group.add_argument(
        "--additional-evidence", default="", metavar="FILE",
        help="write the exact text that the CPU's quote covers and KBS gets",
    )  # fmt: skip


def check_options(options: argparse.Namespace) -> None:
    """The checks between options.

    Raises:
        ArgumentError: report data is missing, given twice or not hexadecimal, or belongs to another format.
    """
    named = [name for name in ("report_data", "runtime_data", "additional_evidence") if getattr(options, name)]
    if options.format != FORMAT:
        if named:
            raise ArgumentError(f"--{named[0].replace('_', '-')}: only with --format {FORMAT}", VALIDATION)
        return
    if not options.report_data and not options.runtime_data:
        raise ArgumentError(f"--report-data is required with --format {FORMAT}", REQUIRED)
    if options.report_data and options.runtime_data:
        raise ArgumentError("--runtime-data: excludes --report-data, which follows from it", VALIDATION)
    if options.nonce:
        raise ArgumentError("--nonce: the nonce follows from the report data with this format", VALIDATION)
    if options.report_data and not re.fullmatch(r"(0[xX])?([0-9A-Fa-f]{2}){1,64}", options.report_data):
        raise ArgumentError("--report-data: not 1 to 64 bytes as hexadecimal digits", VALIDATION)


def nonce_of(options: argparse.Namespace) -> str:
    """The nonce for the devices, as hexadecimal digits.

    Raises:
        InputError: the runtime data cannot be read.
    """
    from nvattest._text import hex_bytes
    from nvattest.evidence import device_nonce, device_report_data

    if options.runtime_data is not None:
        nonce, key = _runtime_data(options.runtime_data)
        return device_nonce(device_report_data(nonce, key)).hex()
    data = hex_bytes(options.report_data) or b""
    if len(data) < 32 and options.log_level in ("trace", "debug", "info", "warn"):
        say(f"warning: report data of {len(data)} bytes, zeros follow as guest-components has it", error=True)
    return device_nonce(data).hex()


def collect(
    options: argparse.Namespace, ask: Callable[[argparse.Namespace], tuple[Evidence, ...]]
) -> tuple[Evidence, ...]:
    """The evidence that ``ask`` gets. With ``--device all`` a guest need not have switches, as in guest-components.

    A switch that is there and gives no evidence stops it all the same: the verifier could not tell the two apart.

    Raises:
        InputError, CollectionError: as ``ask``.
    """
    if options.device != "all":
        return ask(options)
    gpus = ask(argparse.Namespace(**{**vars(options), "device": "gpu"}))
    try:
        return gpus + ask(argparse.Namespace(**{**vars(options), "device": "nvswitch"}))
    except CollectionError as error:
        if error.code not in _NO_SWITCH:
            raise
        say(f"no NVSwitch in this evidence: {error}", error=True)
        return gpus


def print_evidence(evidence: tuple[Evidence, ...], options: argparse.Namespace) -> None:
    """The attester's JSON on stdout; the additional evidence into its file; the CPU's report data on stderr.

    Raises:
        InputError: the file cannot be written.
    """
    from nvattest.cli.output import write_file
    from nvattest.evidence import additional_evidence, attester_json, cpu_report_data

    text = additional_evidence(evidence)
    if options.additional_evidence:
        # No newline: the digest is over these bytes and no others.
        write_file(options.additional_evidence, text, mode=0o600)
    print(attester_json(evidence))
    if options.runtime_data is not None:
        nonce, key = _runtime_data(options.runtime_data)
        say(f"report data for the CPU's quote: {cpu_report_data(nonce, key, text).hex()}", error=True)


def _runtime_data(path: str) -> tuple[str, JsonObject]:
    from nvattest._documents import load_json
    from nvattest.collateral.folders import read_bounded

    data = read_bounded(path, _MAXIMUM_RUNTIME_DATA)
    document = load_json(data, source=path, maximum=_MAXIMUM_RUNTIME_DATA, file=True)
    nonce = document.get("nonce") if isinstance(document, dict) else None
    key = document.get("tee-pubkey") if isinstance(document, dict) else None
    if not isinstance(nonce, str) or not isinstance(key, dict) or not key:
        raise InputError(
            f'{path}: expected an object with the text "nonce" and the object "tee-pubkey"', code="runtime-data"
        )
    return nonce, key
