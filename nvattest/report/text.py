"""An appraisal as text: the short account that ``attest`` prints, and the long one of ``explain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from nvattest._package import __version__
from nvattest._text import clean, decimal, joined
from nvattest.errors import ResultCode
from nvattest.model import SIMULATED, counted
from nvattest.report.catalogue import Failure, diagnose, failures, telling
from nvattest.report.reading import (
    AppraisalView,
    CellView,
    ChainView,
    CheckView,
    DeviceView,
    GuestView,
    RimView,
    read_guest,
)
from nvattest.report.terminal import Terminal, fit, listed

if TYPE_CHECKING:
    from nvattest.appraisal.guest import GuestAppraisal
    from nvattest.policy.relying_party import PolicyDecision
    from nvattest.token.verified import Refusal

# --- the account: every check as one line, then the verdict -----------------------------------------------------------

_WORDS: Final = {
    "pass": ("ok", "good"),
    "fail": ("FAIL", "bad"),
    "absent": ("ABSENT", "warn"),
    "skipped": ("skip", "dim"),
}


def account(view: AppraisalView, terminal: Terminal, *, verbose: bool = False) -> str:
    """Device by device, check by check, then the verdict; without ``verbose`` the causes alone where there are some.

    Of several trusted devices each is folded to one line, unless ``verbose``; what a policy allowed is shown there too.
    """
    if view.causes and not verbose:
        return _brief(view, terminal)
    folding = len(view.devices) > 1 and not verbose
    lines = _head(view, terminal)
    for device in view.devices:
        untrusted = "" if device.trusted else "  " + terminal.paint("NOT TRUSTED", "bold", "bad")
        lines += ["", "  ".join([device.label, *filter(None, [_model(device)])]) + untrusted]
        # Where in a file the evidence stood, and what was dropped to read it; plain sources need no line.
        lines += [f"  evidence from: {device.origin}"] if " " in device.origin else []
        lines += _folded(device.checks, terminal) if folding and device.trusted else _checks(device.checks, terminal)
    lines += ["", "PLATFORM", *_checks(view.checks, terminal), ""]
    if view.guest is not None:
        lines[-1:] = ["", *guest_account(view.guest, terminal), ""]
    if folding and any(device.trusted for device in view.devices):
        lines.append("Every check of the trusted devices too: --verbose")
    if view.failures:
        lines.append(f"What it means and what to do: --explain, or nvattest explain {view.failures[0].id}")
    return joined([*lines, _result_of(view, terminal)], colour=terminal.color)


def _model(device: DeviceView) -> str:
    return "  ".join(filter(None, (device.architecture, device.identity.hwmodel, device.report.versions)))


def _head(view: AppraisalView, terminal: Terminal) -> list[str]:
    simulated = "   " + terminal.paint(SIMULATED, "warn") if view.simulated else ""
    judged = f"nvattest {__version__}: {counted(len(view.devices), 'device')} judged at {view.clock}"
    weakened = [f"weakened: {', '.join(view.weakened)}"] if view.weakened else []
    return [judged, f"trust anchors: {view.anchors}{simulated}", *weakened]


# What fits a screen of 24 lines with one cause.
_CAUSES_SHOWN: Final = 4
_LIKELY_SHOWN: Final = 2


def _brief(view: AppraisalView, terminal: Terminal) -> str:
    """What failed, each cause once with the devices that it concerns, the likely reasons and the next step."""
    lines = [*_head(view, terminal), ""]
    alike: dict[tuple[bool, str], list[str]] = {}
    for device in view.devices:
        alike.setdefault((device.trusted, _model(device)), []).append(device.label)
    known: set[str] = set()
    for (trusted, model), labels in alike.items():
        verdict = terminal.paint("trusted", "good") if trusted else terminal.paint("NOT TRUSTED", "bold", "bad")
        lines.append(f"{', '.join(ranges(labels))}  {verdict}")
        # The same model is named once.
        lines += [] if model in known else terminal.wrap(model, first="  ")
        known.add(model)
    for origin in dict.fromkeys(device.origin for device in view.devices if " " in device.origin):
        lines += terminal.wrap(f"evidence from: {origin}", first="  ")
    found = failures(view)
    for position, failure in enumerate(found[:_CAUSES_SHOWN], 1):
        lines += ["", *_cause(position, failure, view, terminal)]
    lines.append("")
    if more := found[_CAUSES_SHOWN:]:
        ids = dict.fromkeys(failure.ids for failure in more)
        lines += terminal.wrap(f"and {len(more)} more: {', '.join(ids)}; --explain shows each")
    if (consequences := len(view.failures) - len(view.causes)) > 0:
        lines.append(f"{counted(consequences, 'more check')} failed or could not be made because of this.")
    allowed = dict.fromkeys(check.tolerated_by for part in view.parts for check in part)
    if names := [name for name in allowed if name]:
        lines += terminal.wrap(f"Allowed by the policy: {', '.join(names)}")
    lines.append(f"All checks: --verbose   More: --explain, nvattest explain {view.failures[0].id}")
    return terminal.finish([*lines, _result_of(view, terminal)])


def _cause(position: int, failure: Failure, view: AppraisalView, terminal: Terminal) -> list[str]:
    check, diagnosis = failure.check, diagnose(failure.check, view)
    word = "failed check" if check.outcome == "fail" else f"failed check ({check.outcome})"
    lead = f"{position}. {', '.join(ranges(failure.devices))}  "
    first, *rest = terminal.wrap(f"{word}: {failure.title}", first=lead, rest="   ")
    lines = [terminal.paint(lead, "bold") + terminal.paint(first[len(lead) :], "bad", "bold")]
    lines += [terminal.paint(line, "bad", "bold") for line in rest]
    lines += terminal.wrap(check.detail, first="   ")
    for name, value in (("expected", check.expected), ("found", check.found)):
        if value and len({check.expected, check.found, check.detail}) > 1 and value not in check.detail:
            lines += terminal.wrap(_short_hex(value), first=f"   {name:<9} ")
    for cause in diagnosis.causes[:_LIKELY_SHOWN]:
        lines += terminal.wrap(cause, first="   likely:   ")
    for action in diagnosis.actions[:1]:
        said = action.removeprefix("$ ")
        # A command stays one line, to be copied.
        lines += [f"   next:     {said}"] if said != action else terminal.wrap(said, first="   next:     ")
    return lines


def ranges(labels: Sequence[str]) -> list[str]:
    """Labels of devices with those that follow each other joined: ``GPU-0 to GPU-7``, ``SWITCH-2``."""
    found: list[list[str]] = []
    for label in labels:
        stem, _, number = label.rpartition("-")
        last = found[-1][-1] if found else ""
        if (place := decimal(number)) is not None and last == f"{stem}-{place - 1}":
            found[-1].append(label)
        else:
            found.append([label])
    parts: list[str] = []
    for run in found:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else run
    return parts


def guest_account(guest: GuestView, terminal: Terminal) -> list[str]:
    """The guest check by check, then what it says in one sentence."""
    lines = [f"GUEST  {guest.maker}, judged at {guest.at} under {guest.anchors}"]

    def cause(check: CheckView) -> str:
        # What one failure left unmade is one line: the cause stays in sight.
        return check.detail if check.outcome == "skipped" else check.id

    for _, alike in groupby(guest.checks, cause):
        checks = list(alike)
        if len(checks) == 1:
            lines += _checks(checks, terminal)
        else:
            word = terminal.paint("skip", "dim")
            lines.append(f"  {word}   {checks[0].step or ''} to {checks[-1].step or ''}  {checks[0].detail}")
    lines += [f"  weakened: {', '.join(guest.weakened)}"] if guest.weakened else []
    tie = f"  the quote ties to it: {guest.strength} (recipe {guest.recipe})"
    return [*lines, tie, f"  {guest.sentence}"]


def saved_guest_account(guest: GuestAppraisal) -> list[str]:
    """The same of a guest that was judged beside a token."""
    from nvattest.appraisal.results import guest_to_json

    return guest_account(read_guest(guest_to_json(guest)), Terminal())


def _result_of(view: AppraisalView, terminal: Terminal) -> str:
    return _result(view.trusted, view.result_code, view.result_message, terminal, simulated=view.simulated)


def _result(trusted: bool, code: int | None, message: str, terminal: Terminal, *, simulated: bool) -> str:
    verdict = terminal.paint("TRUSTED", "bold", "good") if trusted else terminal.paint("NOT TRUSTED", "bold", "bad")
    marked = " (simulated)" if simulated else ""
    return f"Result: {verdict}{marked}, code {code} ({message})"


def _folded(checks: Sequence[CheckView], terminal: Terminal) -> list[str]:
    """The checks of a trusted device: how many passed, and one by one those that only a policy let stand."""
    others = [check for check in checks if check.outcome != "pass"]
    said = f"all {len(checks)} checks passed"
    if others:
        rest = "others" if len(others) > 1 else "other"
        said = f"{len(checks) - len(others)} of {len(checks)} checks passed; the {rest}:"
    return [f"  {terminal.paint('ok', 'good')}         {said}", *_checks(others, terminal)]


def _checks(checks: Sequence[CheckView], terminal: Terminal) -> list[str]:
    lines = []
    for check in checks:
        word, style = _WORDS.get(check.outcome, (check.outcome, "warn"))
        outcome = terminal.paint(word, style) + " " * (6 - len(word))
        lines.append(f"  {outcome} {check.step or '':2}  {check.title}: {check.detail}")
        if check.acceptable:
            if check.tolerated_by:
                lines.append(f"             allowed by the policy: {check.tolerated_by}")
            continue
        for name, value in (("expected", check.expected), ("found", check.found), ("next", check.hint)):
            if value:
                lines.append(f"             {name}: {value}")
    return lines


def decision_account(decision: PolicyDecision, code: ResultCode) -> str:
    """What the relying party's policy said, and the result with it."""
    lines = [f"relying party's policy: {'matched' if decision.matched else 'NOT MATCHED'}"]
    lines += [f"  {reason}" for reason in decision.reasons]
    verdict = "TRUSTED" if code is ResultCode.OK else "NOT TRUSTED"
    lines.append(f"Result with the policy: {verdict}, code {int(code)} ({code.message})")
    return joined(lines)


def claims_account(
    claims: Sequence[Mapping[str, object]],
    code: ResultCode,
    verified_by: Mapping[str, object],
    refusals: Sequence[Refusal] = (),
) -> str:
    """The answer of a remote service: who it is, a line per device, its reasons for refusing one, and the verdict."""
    service = "NVIDIA's remote service" if verified_by.get("nvidia") else "a remote service that is not NVIDIA's"
    simulated = bool(verified_by.get("simulated"))
    mark = f"   {SIMULATED}" if simulated else ""
    lines = [
        f"verified by {service}: {clean(str(verified_by.get('issuer')), 256)}{mark}",
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
        lines.append("  ".join(("", clean(str(claim.get("x-nvidia-device-type", "device")), 16), *words)))
    lines += [f"  {refusal}" for refusal in refusals]
    lines.append(_result(code is ResultCode.OK, int(code), code.message, Terminal(), simulated=simulated))
    return joined(lines)


# --- the story: what failed and why, then each device with its checks, measurements, chains and RIMs ------------------

_SIGNS: Final = {
    "pass": ("✓", "+", "good", ""),
    "fail": ("✗", "X", "bad", " [FAIL]"),
    "absent": ("✗", "X", "bad", " [ABSENT]"),
    "skipped": ("○", "o", "dim", ""),
}
_ALLOWED: Final = ("○", "o", "warn", " [allowed]")


def story(
    view: AppraisalView, terminal: Terminal, *, everything: bool = False, device: str | None = None, saved: bool = True
) -> str:
    """The story of an appraisal for people: of the devices that failed, of all, or of the ``device`` of this label.

    ``saved`` says that it comes from a file, and was not made by a verification just now; the text says so.

    Raises:
        InputError: there is no such device.
    """
    if device is not None:
        return terminal.finish(_device(view.demand(device), terminal))
    lines = [*_heading(view, terminal, saved=saved), *_failures(view, terminal)]
    if view.guest is not None:
        # The root of the picture: the devices are what it asked.
        lines += ["", *guest_story(view.guest, terminal), ""]
    lines += _overview(view, terminal)
    chosen = telling(view)
    shown = [item for item in view.devices if everything or item.label in chosen]
    # With nothing wrong one device stands for all: people want to see what was checked.
    shown = shown or list(view.devices[:1])
    for item in shown:
        lines += ["", *_device(item, terminal)]
    lines += ["", *terminal.heading("PLATFORM"), *_steps(view.checks, terminal)]
    hidden = [item.label for item in view.devices if item not in shown]
    if hidden:
        more = f"Use --all, or --device {hidden[0]}." if saved else "Use --verbose."
        lines += ["", *terminal.wrap(f"Not shown in full: {listed(hidden, maximum=12)}. {more}", style="dim")]
    return terminal.finish(lines)


def _heading(view: AppraisalView, terminal: Terminal, *, saved: bool) -> list[str]:
    warning = terminal.sign("▲", "!")
    word = _mark("TRUSTED" if view.trusted else "NOT TRUSTED", view.trusted, terminal, "bold")
    good = sum(device.trusted for device in view.devices)
    lines = [f"{word}   {good} of {counted(len(view.devices), 'device')} trusted"]
    if view.simulated:
        lines.append(terminal.paint(f"{warning} SIMULATED: this proves nothing about any real device.", "warn", "bold"))
    code = "not recorded" if view.result_code is None else f"{view.result_code} ({view.result_message})"
    lines += _row("result code", code, terminal)
    lines += _row("judged at", view.clock, terminal)
    lines += _row("anchors", view.anchors, terminal)
    lines += _row("nonce", view.nonce or "none was given", terminal)
    lines += _row("weakened by", ", ".join(view.weakened), terminal, style="warn")
    for notice in view.notices:
        lines += terminal.wrap(notice, first=f"{warning} ", style="warn")
    if saved:
        said = "This is a saved result, shown as it stands in the file."
        lines += terminal.wrap(f"{said} It is not verified again and carries no signature.", style="dim")
    return lines


def _mark(text: str, good: bool, terminal: Terminal, *styles: str) -> str:
    sign = terminal.sign("✓", "+") if good else terminal.sign("✗", "X")
    return terminal.paint(f"{sign} {text}".rstrip(), "good" if good else "bad", *styles)


def _row(name: str, value: str, terminal: Terminal, *, style: str = "") -> list[str]:
    return terminal.wrap(value, first=f"  {name:<12}", rest=" " * 14, style=style) if value else []


def _failures(view: AppraisalView, terminal: Terminal) -> list[str]:
    found = failures(view)
    if not found:
        return []
    lines = ["", *terminal.heading("WHAT FAILED")]
    shown = found[:12]
    for position, failure in enumerate(shown, 1):
        lines += _failure(position, failure, view, terminal)
    if len(found) > len(shown):
        lines.append(f"  and {len(found) - len(shown)} more; --all shows every device.")
    consequences = len(view.failures) - len(view.causes)
    if consequences > 0:
        text = f"{counted(consequences, 'more check')} failed or could not be made because of this."
        lines += [*terminal.wrap(text, first="  "), ""]
    return lines


def _failure(position: int, failure: Failure, view: AppraisalView, terminal: Terminal) -> list[str]:
    paint, check = terminal.paint, failure.check
    diagnosis = diagnose(check, view)
    lead = f"{position}. {listed(failure.devices, maximum=3)}  "
    first, *more = terminal.wrap(f"failed check: {failure.title}", first=lead, rest="   ")
    lines = [paint(lead, "bold") + paint(first[len(lead) :], "bad", "bold"), *(paint(line, "bad") for line in more)]
    where = failure.ids if check.step is None else f"step {check.step}, {failure.ids}"
    lines += [*terminal.wrap(where, first="   ", style="dim"), *terminal.wrap(check.detail, first="   ")]
    for name, value in (("expected", check.expected), ("found", check.found)):
        if value:
            lines += terminal.hex(f"{name:<9} ", value, indent="   ", lines=4)
    for fact in diagnosis.facts:
        lines += terminal.wrap(fact, first="   ")
    for title, points in (("Likely causes", diagnosis.causes), ("Next", diagnosis.actions)):
        lines += ["   " + paint(title, "bold"), *terminal.points(points, indent="     ")] if points else []
    return [*lines, paint(f"   More: nvattest explain {check.id}", "dim"), ""]


def _overview(view: AppraisalView, terminal: Terminal) -> list[str]:
    if not view.devices:
        return []
    model = max(8, terminal.width - 59)
    head = f"  {'':<9}   {'model':<{model}} {'driver':<12}{'firmware':<16}{'mode':<6}verdict"
    lines = [*([] if view.causes else [""]), *terminal.heading("DEVICES"), terminal.paint(head, "dim")]
    for device in view.devices:
        failed = sum(check.failed for check in device.checks) or len(device.checks.failures)
        cells = (
            (device.label, 9),
            (_mark("", device.trusted, terminal), 0),
            (device.known_as or "unknown", model),
            (device.report.driver_version or "-", 11),
            (device.report.firmware_version or "-", 15),
            (device.report.mode or "-", 5),
            (terminal.paint(*("trusted", "good") if device.trusted else (f"{failed} failed", "bad")), 0),
        )
        lines.append("  " + " ".join(fit(text, width) if width else text for text, width in cells))
    return lines


def _device(device: DeviceView, terminal: Terminal) -> list[str]:
    report = device.report
    known = [device.architecture, device.identity.chip, report.board and f"board {report.board}", report.mode]
    lines = terminal.heading(device.label, "  ".join(part for part in known if part))
    lines += _row("identity", device.identity.ueid and f"ueid {device.identity.ueid}", terminal)
    lines += _row("", device.identity.pdi and f"PDI {device.identity.pdi}", terminal)
    lines += _row("evidence", f"from {device.origin}" if " " in device.origin else "", terminal)
    lines += _row("report", device.report_sha256, terminal)
    lines += _row("chain", device.chain_sha256, terminal)
    lines += _row("opaque data", report.opaque, terminal)
    lines += ["", terminal.paint("  The story", "bold"), *_steps(device.checks, terminal)]
    lines += ["", *_measurements(device, terminal)]
    if device.chain is not None:
        lines += ["", terminal.paint("  Device chain", "bold"), *_chain(device.chain, terminal)]
    for rim in device.rims:
        lines += ["", *_rim(rim, terminal)]
    if device.minimum_svn:
        lines += ["", terminal.paint("  Minimum security versions", "bold")]
    for svn in device.minimum_svn:
        mark = terminal.paint("ok  ", "good") if svn.satisfied else terminal.paint("LOW ", "bad")
        found = "not reported" if svn.runtime is None else str(svn.runtime)
        lines.append(f"    {mark} {svn.name}: {found}, at least {svn.minimum} is demanded")
    return lines


def guest_story(guest: GuestView, terminal: Terminal) -> list[str]:
    """What the quote says, then every check of the guest."""
    lines = terminal.heading("GUEST", guest.maker)
    lines += terminal.wrap(guest.sentence, first="  ")
    lines += _row("measurement", guest.measurement, terminal)
    lines += _row("level", guest.level, terminal)
    lines += _row("ties to it", f"{guest.strength} (recipe {guest.recipe})", terminal)
    lines += _row("key", guest.key, terminal)
    lines += _row("weakened by", ", ".join(guest.weakened), terminal, style="warn")
    lines += _row("anchors", guest.anchors, terminal)
    lines += _row("collateral", guest.good_until and f"good until {guest.good_until}", terminal)
    return [*lines, *_steps(guest.checks, terminal)]


def _steps(checks: Sequence[CheckView], terminal: Terminal) -> list[str]:
    lines = []
    for check in checks:
        sign, plain, style, word = _SIGNS.get(check.outcome, ("?", "?", "warn", f" [{check.outcome}]"))
        if check.acceptable and check.outcome != "pass":
            sign, plain, style, word = _ALLOWED
        mark = terminal.sign(sign, plain)
        lead = f"  {check.step or '':>3} {mark} "
        said = f"{check.title}: {check.detail}" if check.detail else check.title
        first, *rest = terminal.wrap(said + word, first=lead)
        body = first[len(lead) :]
        # What passed is plain behind its sign.
        text = f"{terminal.paint(mark, style)} {body}" if style == "good" else terminal.paint(f"{mark} {body}", style)
        lines.append(f"  {check.step or '':>3} {text}")
        lines += rest if style == "good" else [terminal.paint(line, style) for line in rest]
        if check.tolerated_by:
            lines.append(terminal.paint(f"        allowed by the policy: {check.tolerated_by}", "warn"))
        for name, value in (("expected", check.expected), ("found", check.found)):
            if value and check.failed:
                lines += terminal.wrap(f"{name} {_short_hex(value)}", first="        ")
    return lines


def _short_hex(value: str, keep: int = 48) -> str:
    digits = all(sign in "0123456789abcdefABCDEF" for sign in value)
    return f"{value[:keep]}…" if digits and len(value) > keep + 1 else value


# --- the measurement map: 64 cells in rows of eight, and each value that differs in full ------------------------------

COLUMNS: Final = 8
CELLS: Final = 64
# Of each state: sign, plain sign, colour, words.
STATES: Final = {
    "matched": ("●", "+", "good", "matched"),
    "mismatched": ("✗", "X", "bad", "MISMATCH"),
    "missing": ("?", "?", "bad", "missing in the report"),
    "exempt": ("○", "o", "warn", "exempt"),
    "not-covered": ("·", ".", "dim", "not covered by a RIM"),
}
_UNKNOWN: Final = ("?", "?", "warn", "unknown")
SOURCES: Final = {"driver": ("D", "driver RIM"), "vbios": ("V", "VBIOS RIM"), "bios": ("B", "switch BIOS RIM")}
MAXIMUM_GOLDEN: Final = 16


def grid(cells: Sequence[CellView]) -> tuple[CellView | None, ...]:
    """All places of the map: at least 64, a whole number of rows, None where nothing was measured or expected."""
    by_index = {cell.index: cell for cell in cells}
    size = max([CELLS, *(index + 1 for index in by_index)])
    size += -size % COLUMNS
    return tuple(by_index.get(index) for index in range(size))


def count_states(device: DeviceView) -> dict[str, int]:
    return {state: sum(cell.state == state for cell in device.measurements or ()) for state in STATES}


def sources_of(device: DeviceView) -> list[tuple[str, str]]:
    """Letter and name of the RIMs that cover measurements of the device."""
    covering = {cell.source for cell in device.measurements or ()}
    return [SOURCES[source] for source in SOURCES if source in covering]


def _measurements(device: DeviceView, terminal: Terminal) -> list[str]:
    title = terminal.paint("  Measurements", "bold")
    if device.measurements is None:
        return [title + ": not compared, because there is no verified RIM to compare with"]
    columns = "".join(f"   +{column} " for column in range(COLUMNS)).rstrip()
    lines = [title, terminal.paint(f"      {columns}", "dim")]
    places = grid(device.measurements)
    for start in range(0, len(places), COLUMNS):
        row = "".join(_cell(cell, terminal) for cell in places[start : start + COLUMNS])
        lines.append(terminal.paint(f"  {start:>4}", "dim") + row)
    legend = [
        f"{terminal.paint(terminal.sign(sign, plain), style)} {count} {words}"
        for count, (sign, plain, style, words) in zip(count_states(device).values(), STATES.values(), strict=True)
        if count
    ]
    sources = ", ".join(f"{letter} {words}" for letter, words in sources_of(device))
    lines += ["      " + "   ".join(legend), terminal.paint(f"      {sources}; a digit counts alternatives", "dim")]
    for cell in device.bad_cells[:16]:
        lines += _difference(cell, device.rim(cell.source), terminal)
    return lines


def _cell(cell: CellView | None, terminal: Terminal) -> str:
    if cell is None:
        return "      "
    sign, plain, style, _ = STATES.get(cell.state, _UNKNOWN)
    letter = SOURCES.get(cell.source, ("",))[0]
    alternatives = str(len(cell.golden)) if len(cell.golden) > 1 else ""
    body = terminal.sign(sign, plain) + letter + alternatives[:2]
    return "   " + terminal.paint(body, style) + " " * max(0, 3 - len(body))


def _difference(cell: CellView, rim: RimView | None, terminal: Terminal) -> list[str]:
    source = SOURCES.get(cell.source, ("?", cell.source or "no RIM"))[1]
    head = terminal.paint(f"      index {cell.index}", "bad", "bold")
    lines = ["", f"{head} (SPDM block {cell.index + 1}), {source}"]
    if rim is not None:
        lines.append(f"        in      {rim.id}")
    many = len(cell.golden) > 1
    for number, golden in enumerate(cell.golden[:MAXIMUM_GOLDEN], 1):
        name = f"golden {number}" if many else "golden"
        lines += terminal.hex(f"{name:<8}", golden, indent=" " * 8, lines=8) if golden else []
    if not cell.runtime:
        return [*lines, "        found   no such block in the report"]
    return lines + terminal.hex(f"{'found':<8}", cell.runtime, indent=" " * 8, lines=8)


# --- chains and RIMs --------------------------------------------------------------------------------------------------


def _rim(rim: RimView, terminal: Terminal) -> list[str]:
    lines = [terminal.paint("  RIM ", "bold") + rim.id]
    if not rim.sha256:
        return [*lines, terminal.paint(f"      {rim.role}: not there, or not readable", "bad")]
    origin = rim.origin and f" ({rim.origin})"
    what = f"{rim.role}, {rim.product} {rim.edition} {rim.version}, from the {rim.source}{origin}"
    lines += [*terminal.wrap(what, first="      "), f"      SHA-256 {rim.sha256}"]
    if rim.chain is not None:
        ends = [certificate.not_after for certificate in rim.chain.certificates if certificate.not_after]
        lines += [f"      signers until {min(ends)}"] if ends else []
        lines += _chain(rim.chain, terminal)
    return lines


def _chain(chain: ChainView, terminal: Terminal) -> list[str]:
    """The chain as a tree, root first, each finding at its certificate."""
    lines = []
    for level, (position, certificate) in enumerate(reversed(list(enumerate(chain.certificates)))):
        lead = "    " + ("  " * (level - 1) + terminal.sign("└─ ", "`- ") if level else "")
        name, room = certificate.name, terminal.width - len(lead)
        lines.append(lead + terminal.paint(name if len(name) <= room else fit(name, room).rstrip(), "bold"))
        below = "    " + "  " * level + ("   " if level else "  ")
        lines += [*_certificate(position, chain, below, terminal), *_findings(chain, position, below, terminal)]
    return lines + _findings(chain, None, "    ", terminal)


def _findings(chain: ChainView, position: int | None, indent: str, terminal: Terminal) -> list[str]:
    found = (finding for finding in chain.findings if finding.position == position)
    return [line for finding in found for line in terminal.wrap(finding.message, first=indent, style="bad")]


def _certificate(position: int, chain: ChainView, indent: str, terminal: Terminal) -> list[str]:
    certificate = chain.certificates[position]
    role, style = (", leaf", "dim") if position == 0 else ("", "dim")
    if position == len(chain.certificates) - 1:
        pinned = bool(chain.anchor) and chain.path_ok
        role, style = (", pinned root", "dim") if pinned else (", NOT a pinned root", "bad")
    validity = f"{certificate.not_before[:10]} to {certificate.not_after[:10]}{role}"
    lines = terminal.wrap(validity, first=indent, style=style)
    answer = certificate.revocation
    if answer is not None:
        said = "not revoked" if answer.good else answer.status.upper()
        said += f" ({answer.why})" if answer.why else ""
        said += f" from the {answer.source}" if answer.source else ""
        said += f", until {answer.next_update}" if answer.next_update else ""
        said += f", by {answer.signer}" if answer.responder else ""
        said += f"; {answer.detail}" if not answer.good and answer.detail not in ("", answer.status) else ""
        lines += terminal.wrap(said, first=indent, style="good" if answer.good else "bad")
    return lines
