"""Evidence at the shell: the options that say where it comes from, its collection, and ``nvattest collect-evidence``.

The command asks the devices and prints what they gave, in the form that ``attest`` reads. With ``--format coco`` it is
device evidence as Confidential Containers exchange it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from nvattest._documents import JsonObject, load_json
from nvattest._text import hex_bytes
from nvattest.cli import sources
from nvattest.cli.arguments import (
    REQUIRED,
    ArgumentError,
    Parser,
    add_options,
    choice,
    flag,
    given,
    ignored,
    input_file,
    option,
    output_file,
    read,
    read_input,
    seconds,
    warns,
)
from nvattest.cli.output import print_json, say, write_file
from nvattest.errors import CollectionError, InputError, NvattestError, ResultCode
from nvattest.evidence import (
    MAXIMUM_TEXT,
    Evidence,
    EvidenceForm,
    additional_evidence,
    attester_json,
    cpu_report_data,
    device_nonce,
    device_report_data,
    dump_evidence,
    load_evidence,
)
from nvattest.model import DeviceKind, Nonce

_COCO = "coco"
_MAXIMUM_RUNTIME_DATA = 64 * 1024
# The library for switches is not installed, or knows none.
_NO_SWITCH = ("nscq-missing", "no-switch")
KINDS = {
    "gpu": (DeviceKind.GPU,),
    "nvswitch": (DeviceKind.NVSWITCH,),
    "all": (DeviceKind.GPU, DeviceKind.NVSWITCH),
}


class EvidenceSource(NamedTuple):
    """The kinds of devices asked for, and the files of those that are recorded; the driver is asked for the others."""

    kinds: tuple[DeviceKind, ...]
    files: Mapping[DeviceKind, str]
    nonce: str = ""
    corelib: bool = False
    allow_devtools: bool = False
    timeout: float = 30.0

    @property
    def live(self) -> bool:
        """Whether a driver is asked."""
        return any(kind not in self.files for kind in self.kinds)


class _Asked(NamedTuple):
    """How the command line names an ``EvidenceSource``."""

    device: str
    nonce: str = option("HEX", "the 32 bytes that the report has to answer", default="")
    gpu_evidence_source: str = option(
        "SOURCE", "nvml (the default), corelib, or file (the default with a file)", choice("nvml", "corelib", "file"),
        "nvml",
    )  # fmt: skip
    gpu_architecture: str = option("NAME", "blackwell; needed with corelib", default="")
    gpu_evidence_file: str = option("FILE", "recorded evidence; a file of both kinds is named for both", default="")
    nvswitch_evidence_source: str = option(
        "SOURCE", "nscq (the default), or file (the default with a file)", choice("nscq", "file"), "nscq"
    )
    nvswitch_evidence_file: str = option("FILE", "recorded evidence", default="")
    allow_devtools: bool = flag(
        "for development: also collect from GPUs in DevTools mode; only a --policy with allow_debug trusts them"
    )
    driver_timeout: float = option("SECONDS", "for all driver calls together (30)", seconds, 30.0)


def add_evidence_options(parser: argparse.ArgumentParser) -> None:
    """Which devices, and who gives their evidence."""
    group = parser.add_argument_group("evidence")
    group.add_argument(
        "-d", "--device", type=choice(*KINDS), default="gpu", metavar="KIND", help="gpu (the default), nvswitch or all"
    )
    add_options(group, _Asked)


def evidence_source(options: argparse.Namespace) -> EvidenceSource:
    """The source that the options name; options of devices not asked for are ignored with a warning.

    A file that is named without a source is the source: otherwise a verdict on this machine's devices would pass for
    one on the file.
    """
    asked = read(_Asked, options)
    kinds, files = KINDS[asked.device], {}
    corelib = asked.gpu_evidence_source == "corelib" and DeviceKind.GPU in kinds
    if DeviceKind.GPU in kinds:
        if asked.gpu_architecture and asked.gpu_architecture.upper() != "BLACKWELL":
            raise ArgumentError("--gpu-architecture: only blackwell can be named")
        if corelib and not asked.gpu_architecture:
            raise ArgumentError("--gpu-architecture: required when the source is corelib")
        if not corelib:
            ignored(options, ["gpu_architecture"], "only the source corelib needs it")
    for kind, word, others in ((DeviceKind.GPU, "GPU", ["gpu_architecture"]), (DeviceKind.NVSWITCH, "switch", [])):
        names = [f"{kind.value}_evidence_source", f"{kind.value}_evidence_file"]
        chosen, path = (getattr(asked, name) for name in names)
        file_option = f"--{kind.value}-evidence-file"
        if kind not in kinds:
            why = f"--device {asked.device} asks for no {word}; --device all asks for both kinds"
            ignored(options, [*names, *others], why)
        elif chosen == "file" or given(options, *names) == [file_option]:
            files[kind] = _needed_file(path, file_option)
        else:
            ignored(options, names[1:], f"the source is {chosen}, which is named too")
    if len(files) == len(kinds):
        ignored(options, ["allow_devtools", "driver_timeout"], "all evidence is from files, and no driver is asked")
    return EvidenceSource(kinds, files, asked.nonce, corelib, asked.allow_devtools, asked.driver_timeout)


def _needed_file(path: str, option: str) -> str:
    if not path:
        raise ArgumentError(f"{option}: must be provided when the evidence source is file")
    try:
        return input_file(path)
    except argparse.ArgumentTypeError as error:
        raise ArgumentError(f"{option}: {error}") from None


def add_evidence_files(group: argparse._ArgumentGroup) -> None:
    """Recorded evidence of devices."""
    group.add_argument("--gpu-evidence-file", type=input_file, metavar="FILE", help="JSON of collect-evidence")
    group.add_argument("--nvswitch-evidence-file", type=input_file, metavar="FILE", help="JSON of collect-evidence")


def evidence_files(options: argparse.Namespace) -> tuple[str, ...]:
    """The files of ``add_evidence_files``."""
    return tuple(path for path in (options.gpu_evidence_file, options.nvswitch_evidence_file) if path is not None)


def collect(source: EvidenceSource, nonce: Nonce | None) -> tuple[Evidence, ...]:
    """The evidence of the devices asked for."""
    if not source.live and len(set(source.files.values())) == 1:
        # One file for both kinds is the file that collect-evidence --device all writes.
        return _from_file(source.files[source.kinds[0]], source.kinds)
    found: list[Evidence] = []
    for kind in source.kinds:
        if kind in source.files:
            found += _from_file(source.files[kind], (kind,))
        elif kind is DeviceKind.GPU and source.corelib:
            raise InputError(
                "corelib is not supported: it reads Blackwell GPUs outside confidential computing", code="corelib",
                result_code=ResultCode.CORELIB_INIT_FAILED,
                hint="collect with NVIDIA's nvattest and give the result with --gpu-evidence-source file",
            )  # fmt: skip
        else:
            found += _from_driver(kind, nonce, source)
    return tuple(found)


def requester_nonce(source: EvidenceSource) -> Nonce | None:
    """The nonce of ``--nonce``; without one a new random nonce, where a live device will be asked; else None.

    A nonce that is read from the recording itself would prove nothing.
    """
    if source.nonce:
        with sources.naming("--nonce"):
            return Nonce.from_hex(source.nonce)
    return Nonce(os.urandom(32)) if source.live else None


def nonce_and_evidence(source: EvidenceSource) -> tuple[Nonce | None, tuple[Evidence, ...]]:
    """Nonce and evidence; as in NVIDIA's program a bad evidence file is reported before a bad nonce."""
    try:
        nonce = requester_nonce(source)
    except InputError:
        if not source.live:
            collect(source, None)
        raise
    return nonce, collect(source, nonce)


def _from_driver(kind: DeviceKind, nonce: Nonce | None, source: EvidenceSource) -> tuple[Evidence, ...]:
    from nvattest import session

    if nonce is None:
        raise InputError("a live device needs a nonce", code="nonce")
    return session.collect(nonce, kinds=(kind,), timeout=source.timeout, allow_devtools=source.allow_devtools)


def read_evidence(path: str, option: str = "--gpu-evidence-file") -> tuple[Evidence, ...]:
    """The evidence in a file, of devices of any kind."""
    return sources.read_file(option, path, MAXIMUM_TEXT, load_evidence, "evidence")


def _from_file(path: str, kinds: tuple[DeviceKind, ...]) -> tuple[Evidence, ...]:
    """The evidence of one file by kind, which is the order of two files."""
    items = read_evidence(path, f"--{kinds[0].value}-evidence-file")
    for index, item in enumerate(items):
        if item.kind not in kinds:
            raise InputError(
                f"{path}: item {index} is of {item.architecture.value}, which is no {kinds[0].value}",
                code="device-kind",
                hint="give GPUs with --gpu-evidence-file and switches with --nvswitch-evidence-file; a file that holds "
                "both is named in both, with --device all",
            )
    for kind in kinds:
        if all(item.kind is not kind for item in items):
            raise InputError(
                f"{path}: there is no {kind.value} in it, and --device all asks for both kinds", code="device-kind",
                hint="collect with --device all, or leave out --device and the other option",
            )  # fmt: skip
    return tuple(item for kind in kinds for item in items if item.kind is kind)


class CocoRequest(NamedTuple):
    """What the devices shall answer, as report data or as the file from which it follows, and the file for KBS."""

    warn: bool
    report_data: str = option(
        "HEX", "what the devices are bound to, 1 to 64 bytes; they answer the first 32", default=""
    )
    runtime_data: str | None = option(
        "FILE", 'JSON with "nonce" and "tee-pubkey" of the KBS handshake: gives the report data of devices and CPU',
        input_file,
    )  # fmt: skip
    additional_evidence: str = option(
        "FILE", "write the exact text that the CPU's quote covers and KBS gets", output_file, ""
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NVIDIA's options under NVIDIA's names, and ours."""
    add_evidence_options(parser)
    add_options(parser.add_argument_group("Confidential Containers (--format coco)"), CocoRequest)
    if isinstance(parser, Parser):
        parser.more_formats = (_COCO,)


def run(options: argparse.Namespace) -> int:
    """Collect and print. JSON goes to stdout in all formats: evidence has no other form."""
    source = evidence_source(options)
    coco = _coco_request(options)
    try:
        if coco is not None:
            _collect_coco(source, coco)
            return ResultCode.OK.exit_status
        evidences = dump_evidence(_fresh_evidence(source), form=EvidenceForm.ARRAY)
    except NvattestError as error:
        code = error.result_code
        if options.format == "json":
            said = {"message": str(error), "hint": error.hint}
            print_json("collect-evidence", {"evidences": None, "error": said}, code=code)
        hint = [f"  next: {error.hint}"] if error.hint else []
        say(f"Error {int(code):03d}: {code.message}: {error}", *hint, error=True)
        return code.exit_status
    print_json("collect-evidence", {"evidences": evidences}, code=ResultCode.OK)
    return ResultCode.OK.exit_status


def _fresh_evidence(source: EvidenceSource) -> tuple[Evidence, ...]:
    """The evidence, every report of which answers the nonce."""
    from nvattest.spdm.report import parse_report

    nonce, evidence = nonce_and_evidence(source)
    # As NVIDIA's program does: evidence that answers another nonce is not handed on.
    for index, item in enumerate(evidence):
        if nonce is None or parse_report(item.report, item.kind).request.nonce != nonce.value:
            gpu = item.kind is DeviceKind.GPU
            raise InputError(
                f"item {index}: the report answers another nonce than the one that was asked for", code="nonce",
                result_code=ResultCode.GPU_EVIDENCE_NONCE_MISMATCH if gpu else ResultCode.SWITCH_NONCE_MISMATCH,
                hint="give the nonce of the recording (--nonce)",
            )  # fmt: skip
    return evidence


def _coco_request(options: argparse.Namespace) -> CocoRequest | None:
    """The request of ``--format coco``, or None."""
    request = read(CocoRequest, options, warn=warns(options))
    if options.format != _COCO:
        if named := given(options, *CocoRequest._field_defaults):
            raise ArgumentError(f"{named[0]}: only with --format {_COCO}")
        return None
    if not request.report_data and not request.runtime_data:
        raise ArgumentError(f"--report-data is required with --format {_COCO}", REQUIRED)
    if request.report_data and request.runtime_data:
        raise ArgumentError("--runtime-data: excludes --report-data, which follows from it")
    if options.nonce:
        raise ArgumentError("--nonce: the nonce follows from the report data with this format")
    if request.report_data and not re.fullmatch(r"(0[xX])?([0-9A-Fa-f]{2}){1,64}", request.report_data):
        raise ArgumentError("--report-data: not 1 to 64 bytes as hexadecimal digits")
    return request


def _collect_coco(source: EvidenceSource, request: CocoRequest) -> None:
    """Print the attester's JSON; the additional evidence goes into its file, the CPU's report data to stderr."""
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
        return _fresh_evidence(source)
    gpus = _fresh_evidence(source._replace(kinds=(DeviceKind.GPU,)))
    try:
        return gpus + _fresh_evidence(source._replace(kinds=(DeviceKind.NVSWITCH,)))
    except CollectionError as error:
        if error.code not in _NO_SWITCH:
            raise
        say(f"no NVSwitch in this evidence: {error}", error=True)
        return gpus


def _runtime_data(path: str) -> tuple[str, JsonObject]:
    data = read_input(path, _MAXIMUM_RUNTIME_DATA)
    document = load_json(data, source=path, maximum=_MAXIMUM_RUNTIME_DATA, file=True)
    nonce, key = (document.get("nonce"), document.get("tee-pubkey")) if isinstance(document, dict) else (None, None)
    if not isinstance(nonce, str) or not isinstance(key, dict) or not key:
        raise InputError(
            f'{path}: expected an object with the text "nonce" and the object "tee-pubkey"', code="runtime-data"
        )
    return nonce, key
