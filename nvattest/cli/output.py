"""What commands print and write: an appraisal as text, and files that are never half written."""

from __future__ import annotations

import argparse
import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final

from nvattest._text import block, clean, joined
from nvattest._version import __version__
from nvattest.errors import InputError, NvattestError

if TYPE_CHECKING:
    from nvattest.appraisal.check import Check
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal
    from nvattest.errors import ResultCode
    from nvattest.evidence import Evidence
    from nvattest.model import VerificationTime
    from nvattest.policy.decision import PolicyDecision
    from nvattest.token.refusals import Refusal
    from nvattest.token.verified import VerifiedToken

_MAXIMUM_LINKS: Final = 40
_WORDS = {"pass": "ok", "fail": "FAIL", "absent": "ABSENT", "skipped": "skip"}


def say(*lines: str, error: bool = False, colour: bool = False) -> None:
    """Print lines for people, on stderr with ``error``: the way out of this program, where text is cleaned once more.

    A line that a caller gives may be a text of several lines of ours. ``colour`` lets our own colours through.
    """
    stream = sys.stderr if error else sys.stdout
    # To print, no stream means stdout; what is meant for a stderr that is closed has no place there.
    if stream is not None:
        print("\n".join([block(line, colour=colour) for line in lines]), file=stream)


def render_appraisal(appraisal: Appraisal, *, verbose: bool = False) -> str:
    """A readable account: device by device, check by check, then the verdict.

    Of several devices the trusted ones are folded to one line each, unless ``verbose``; what a policy allowed is shown
    there too. A device that is not trusted, a single device and the platform show every check.
    """
    folding = len(appraisal.devices) > 1 and not verbose
    lines = [
        (
            f"nvattest {__version__}: {len(appraisal.devices)} "
            f"{'device' if len(appraisal.devices) == 1 else 'devices'} judged at {appraisal.at}"
        ),
        f"trust anchors: {appraisal.anchors}" + ("   *** SIMULATED: this proves nothing ***" * appraisal.simulated),
    ]
    if appraisal.weakened:
        lines.append(f"weakened: {', '.join(appraisal.weakened)}")
    for device in appraisal.devices:
        fold = folding and device.trusted
        lines += ["", _heading(device), *_read_how(device)]
        lines += _folded(device.checks) if fold else _checks(device.checks)
    lines += ["", "PLATFORM", *_checks(appraisal.checks), ""]
    if folding and any(device.trusted for device in appraisal.devices):
        lines.append("Every check of the trusted devices too: --verbose")
    if appraisal.failures:
        lines.append(f"What it means and what to do: --explain, or nvattest explain {appraisal.failures[0][1].id}")
    code = appraisal.result_code
    verdict = "TRUSTED" if appraisal.trusted else "NOT TRUSTED"
    marked = " (simulated)" if appraisal.simulated else ""
    lines.append(f"Result: {verdict}{marked}, code {int(code)} ({code.message})")
    return joined(lines)


_COLOURS = {"ok": "32", "FAIL": "31", "ABSENT": "33", "skip": "2", "NOT TRUSTED": "1;31", "TRUSTED": "1;32"}
# The outcome of a check, what a device's heading ends with, the verdict, the mark of a simulation.
_PAINTED = re.compile(
    r"(?m)^  (?:ok|FAIL|ABSENT|skip)(?= )|(?<=  )NOT TRUSTED$|(?<=^Result: )(?:NOT )?TRUSTED"
    r"|\*\*\* SIMULATED: this proves nothing \*\*\*$"
)


def painted(text: str) -> str:
    """The account for a terminal that has colour; only colour is added."""

    def paint(match: re.Match[str]) -> str:
        found = match[0].lstrip()
        return f"{match[0][: -len(found)]}\x1b[{_COLOURS.get(found, '33')}m{found}\x1b[0m"

    return _PAINTED.sub(paint, text)


def _heading(device: DeviceAppraisal) -> str:
    parts = [device.label, device.declared_architecture.value]
    if device.identity is not None:
        parts.append(device.identity.hwmodel)
    if device.report is not None:
        from nvattest.appraisal.versions import describe

        parts.append(describe(device.report))
    return "  ".join(parts) + ("" if device.trusted else "  NOT TRUSTED")


def say_how_read(evidence: Iterable[Evidence]) -> None:
    """The same on stderr, for commands whose output has no place for it."""
    for origin in dict.fromkeys(item.origin for item in evidence if " " in item.origin):
        say(f"evidence from: {origin}", error=True)


def _read_how(device: DeviceAppraisal) -> list[str]:
    """Where in a file the evidence stood and what was dropped to read it; plain sources need no line."""
    return [f"  evidence from: {device.origin}"] if " " in device.origin else []


def _folded(checks: tuple[Check, ...]) -> list[str]:
    """The checks of a trusted device: how many passed, and one by one those that only a policy let stand."""
    others = tuple(check for check in checks if check.outcome.value != "pass")
    if not others:
        return [f"  ok         all {len(checks)} checks passed"]
    word = "other" if len(others) == 1 else "others"
    passed = f"  ok         {len(checks) - len(others)} of {len(checks)} checks passed; the {word}:"
    return [passed, *_checks(others)]


def _checks(checks: tuple[Check, ...]) -> list[str]:
    lines = []
    for check in checks:
        word = _WORDS[check.outcome.value]
        lines.append(f"  {word:6} {check.spec.step:2}  {check.spec.title}: {check.detail}")
        if check.acceptable:
            if check.tolerated_by:
                lines.append(f"             allowed by the policy: {check.tolerated_by}")
            continue
        for name, value in (("expected", check.expected), ("found", check.found), ("next", check.hint)):
            if value:
                lines.append(f"             {name}: {value}")
    return lines


def render_decision(decision: PolicyDecision, code: ResultCode) -> str:
    """What the relying party's policy said, and the result with it."""
    lines = [f"relying party's policy: {'matched' if decision.matched else 'NOT MATCHED'}"]
    lines += [f"  {reason}" for reason in decision.reasons]
    lines.append(
        f"Result with the policy: {'TRUSTED' if int(code) == 0 else 'NOT TRUSTED'}, code {int(code)} ({code.message})"
    )
    return joined(lines)


def times(at: VerificationTime | None) -> dict[str, str] | None:
    """The instants of a judgement for programs; None where a token does not say them."""
    from nvattest.model import format_time

    return None if at is None else {"device": format_time(at.device), "rim": format_time(at.rim)}


def voucher(verified: VerifiedToken) -> dict[str, object]:
    """Who vouches for a token: the issuer, where and how its key was got, and whether it is NVIDIA's own service."""
    from nvattest.model import format_time

    return {
        "issuer": verified.issuer,
        "nvidia": verified.of_nvidia,
        "key_url": verified.key_url,
        "key_source": verified.key_source,
        "issued": format_time(verified.issued),
        "at": times(verified.at),
        "anchors": verified.anchors,
        "simulated": verified.simulated,
    }


def render_claims(
    claims: list[dict[str, object]],
    code: ResultCode,
    verified_by: Mapping[str, object],
    refusals: tuple[Refusal, ...] = (),
) -> str:
    """The answer of a remote service: who it is, a line per device, its reasons for refusing one, and the verdict."""
    service = "NVIDIA's remote service" if verified_by.get("nvidia") else "a remote service that is not NVIDIA's"
    simulated = bool(verified_by.get("simulated"))
    lines = [
        f"verified by {service}: {clean(str(verified_by.get('issuer')), 256)}"
        + "   *** SIMULATED: this proves nothing ***" * simulated,
        "its signature, nonce and digests were checked here",
        f"key: {verified_by.get('key_source')}",
        f"issued {verified_by.get('issued')}",
    ]
    if verified_by.get("tls_roots") is not None:
        lines.append(f"TLS roots: {verified_by['tls_roots']}")
    if verified_by.get("anchors") is not None:
        lines.append(f"trust anchors, as the service says: {clean(str(verified_by['anchors']), 64)}")
    for claim in claims:
        words = (f"{name} {clean(str(claim.get(name)), 64)}" for name in ("hwmodel", "ueid", "measres"))
        text = "  ".join(("", clean(str(claim.get("x-nvidia-device-type", "device")), 16), *words))
        lines.append(text)
    lines += [f"  {refusal}" for refusal in refusals]
    verdict = ("TRUSTED" if int(code) == 0 else "NOT TRUSTED") + " (simulated)" * simulated
    lines.append(f"Result: {verdict}, code {int(code)} ({code.message})")
    return joined(lines)


def write_file(path: str, content: str | bytes, *, mode: int = 0o666) -> None:
    """Write an output that the caller named. Text becomes UTF-8.

    A regular file, also one that a link leads to, is written whole or not at all. It has ``mode`` less the umask; where
    others may read it, an older file of the caller's keeps its permissions. A device, a pipe or a descriptor of this
    process (``/dev/stdout``) is written to and stays what it is.

    Raises:
        InputError: it cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        place, number = _place(path)
        if number is None:
            try:
                old = os.lstat(place)
            except FileNotFoundError:
                old = None
            if old is None or stat.S_ISREG(old.st_mode):
                _replace(place, data, mode, old)
                return
            descriptor = os.open(place, os.O_WRONLY | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
        else:
            descriptor = _duplicate(number)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None


def open_stream(path: str) -> BinaryIO:
    """Open an output that is written piece by piece. What ``path`` names is as in ``write_file``.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        place, number = _place(path)
        return open(place, "wb") if number is None else os.fdopen(_duplicate(number), "wb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None


def _place(path: str) -> tuple[str, int | None]:
    """The path behind links, and the number where it is a descriptor of this process.

    ``/dev/stdout`` and ``/dev/fd/N`` are links to such. Opened by name, the file behind one is written from its start.
    """
    descriptors = os.path.realpath("/proc/self/fd")
    place = path
    for _ in range(_MAXIMUM_LINKS):
        folder, name = os.path.realpath(os.path.dirname(place) or "."), os.path.basename(place)
        place = os.path.join(folder, name)
        if folder == descriptors and name.isdecimal():
            return place, int(name)
        try:
            target = os.readlink(place)
        except OSError:
            return place, None
        place = os.path.join(folder, target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _duplicate(number: int) -> int:
    # What was printed before stands before it.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return os.dup(number)


def _replace(path: str, data: bytes, mode: int, old: os.stat_result | None) -> None:
    from nvattest._folder import replace_file

    def settle(descriptor: int) -> None:
        # Of another user's file nothing is kept: whoever made it must not choose who may write into this one.
        if old is None or not mode & 0o077 or old.st_uid != os.geteuid():
            return
        kept = stat.S_IMODE(old.st_mode) & 0o777
        if old.st_gid != os.fstat(descriptor).st_gid:
            try:
                os.fchown(descriptor, -1, old.st_gid)
            except OSError:
                kept &= ~0o070
        os.fchmod(descriptor, kept)

    folder, name = os.path.split(path)
    descriptor = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        replace_file(descriptor, name, data, new=f".nvattest-{os.urandom(8).hex()}", mode=mode, settle=settle)
    finally:
        os.close(descriptor)


def report_error(error: NvattestError, options: argparse.Namespace, verdict: str, members: dict[str, object]) -> None:
    """A failure before anything could be judged: in the chosen format, and never an empty stdout.

    ``verdict`` is the word of the text format, ``members`` are those of the command's JSON beside code and error.
    """
    code = error.result_code
    if options.format == "json":
        from nvattest._documents import dump_json

        said = {"code": error.code, "message": str(error), "hint": error.hint}
        print(dump_json({"result_code": int(code), "result_message": code.message, "error": said, **members}))
    else:
        say(f"Result: {verdict}, code {int(code)} ({code.message})", f"  {error.code}: {error}")
        if error.hint:
            say(f"  next: {error.hint}")
    say(f"Error {int(code):03d}: {code.message}", error=True)
