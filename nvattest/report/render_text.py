"""An appraisal as text: the verdict, what failed and why, then each device with its story, map, chains and RIMs."""

from __future__ import annotations

from nvattest.report.diagnosis import Failure, diagnose, failures, short_hex, telling
from nvattest.report.model import (
    AppraisalView,
    CertificateView,
    ChainView,
    CheckView,
    DeviceView,
    RimView,
)
from nvattest.report.reading import read_appraisal
from nvattest.report.render_map import measurement_map
from nvattest.report.terminal import Terminal, fit
from nvattest.report.values import listed

_OUTCOMES = {
    "pass": ("✓", "ok", "good"),
    "fail": ("✗", "FAIL", "bad"),
    "absent": ("✗", "ABSENT", "bad"),
    "skipped": ("○", "skip", "dim"),
}


def explain_appraisal_json(
    obj: object,
    *,
    width: int = 80,
    color: bool = False,
    unicode: bool = True,
    everything: bool = False,
    device: str | None = None,
    saved: bool = True,
) -> str:
    """The JSON of ``appraisal_to_json`` as text for people.

    Args:
        obj: the appraisal as JSON values, of this or another version.
        width: columns, at least 60.
        color: whether to use ANSI colours.
        unicode: whether the terminal can show more than ASCII.
        everything: the whole story of every device, not only of those that failed.
        device: only this device, by its label.
        saved: whether it comes from a file, and was not made by a verification just now; the text says so.

    Raises:
        InputError: no appraisal, or no such device.
    """
    return render_appraisal_view(
        read_appraisal(obj),
        Terminal(width=max(60, width), color=color, unicode=unicode),
        everything=everything,
        device=device,
        saved=saved,
    )


def render_appraisal_view(
    view: AppraisalView,
    terminal: Terminal,
    *,
    everything: bool = False,
    device: str | None = None,
    saved: bool = True,
) -> str:
    """The text of an appraisal that was read already."""
    if device is not None:
        return terminal.finish(_device_story(view.demand(device), terminal))
    lines = [*_heading(view, terminal, saved=saved), *_failures(view, terminal), *_overview(view, terminal)]
    chosen = telling(view)
    shown = [item for item in view.devices if everything or item.label in chosen]
    if not shown and view.devices:
        # With nothing wrong one device stands for all: people want to see what was checked.
        shown = [view.devices[0]]
    for item in shown:
        lines += ["", *_device_story(item, terminal)]
    lines += ["", *_section("PLATFORM", "", terminal), *_steps(view.checks, terminal)]
    hidden = [item.label for item in view.devices if item not in shown]
    if hidden:
        more = f"Use --all, or --device {hidden[0]}." if saved else "Use --verbose."
        text = f"Not shown in full: {listed(hidden, maximum=12)}. {more}"
        lines += ["", *(terminal.paint(line, "dim") for line in terminal.wrap(text))]
    return terminal.finish(lines)


def verdict_word(view: AppraisalView) -> str:
    """The verdict in two words."""
    return "TRUSTED" if view.trusted else "NOT TRUSTED"


def _heading(view: AppraisalView, terminal: Terminal, *, saved: bool) -> list[str]:
    paint = terminal.paint
    good = sum(device.trusted for device in view.devices)
    total = len(view.devices)
    word = paint(f"{terminal.sign('✓', '+')} TRUSTED", "good", "bold") if view.trusted else paint(
        f"{terminal.sign('✗', 'X')} NOT TRUSTED", "bad", "bold"
    )  # fmt: skip
    lines = [f"{word}   {good} of {total} {'device' if total == 1 else 'devices'} trusted"]
    if view.simulated:
        lines += [
            paint(f"{terminal.sign('▲', '!')} SIMULATED: this proves nothing about any real device.", "warn", "bold")
        ]
    code = "not recorded" if view.result_code is None else f"{view.result_code} ({view.result_message})"
    rows = [
        ("result code", code),
        ("judged at", view.clock),
        ("anchors", view.anchors),
        ("nonce", view.nonce or "none was given"),
    ]
    if view.weakened:
        rows.append(("weakened by", ", ".join(view.weakened)))
    for name, value in rows:
        style = ("warn",) if name == "weakened by" else ()
        first, *rest = terminal.wrap(value, first=f"  {name:<12}", rest=" " * 14)
        lines += [paint(first, *style), *(paint(line, *style) for line in rest)]
    for notice in view.notices:
        lines += [paint(line, "warn") for line in terminal.wrap(notice, first=f"{terminal.sign('▲', '!')} ", rest="  ")]
    if saved:
        text = (
            "This is a saved result, shown as it stands in the file. It is not verified again and carries no signature."
        )
        lines += [paint(line, "dim") for line in terminal.wrap(text)]
    return lines


def _failures(view: AppraisalView, terminal: Terminal) -> list[str]:
    found = failures(view)
    if not found:
        return []
    lines = ["", *_section("WHAT FAILED", "", terminal)]
    shown = found[:12]
    for position, failure in enumerate(shown, 1):
        lines += _failure(position, failure, view, terminal)
    if len(found) > len(shown):
        lines.append(f"  and {len(found) - len(shown)} more; --all shows every device.")
    consequences = len(view.failures) - len(view.causes)
    if consequences > 0:
        many = "checks" if consequences > 1 else "check"
        lines += terminal.wrap(f"{consequences} more {many} failed or could not be made because of this.", first="  ")
        lines.append("")
    return lines


def _failure(position: int, failure: Failure, view: AppraisalView, terminal: Terminal) -> list[str]:
    paint, check = terminal.paint, failure.check
    diagnosis = diagnose(check, view)
    lead = f"{position}. {listed(failure.devices, maximum=3)}  "
    where = f"step {check.step}, {failure.ids}" if check.step is not None else failure.ids
    first, *more = terminal.wrap(f"failed check: {failure.title}", first=lead, rest="   ")
    lines = [paint(lead, "bold") + paint(first[len(lead) :], "bad", "bold"), *(paint(line, "bad") for line in more)]
    lines += [
        *(paint(line, "dim") for line in terminal.wrap(where, first="   ")),
        *terminal.wrap(check.detail, first="   "),
    ]
    for name, value in (("expected", check.expected), ("found", check.found)):
        if value:
            lines += _value(name, value, terminal)
    for fact in diagnosis.facts:
        lines += terminal.wrap(fact, first="   ")
    if diagnosis.causes:
        lines.append("   " + paint("Likely causes", "bold"))
        for cause in diagnosis.causes:
            lines += terminal.wrap(cause, first="     - ", rest="       ")
    if diagnosis.actions:
        lines.append("   " + paint("Next", "bold"))
        for action in diagnosis.actions:
            if action.startswith("$ "):
                lines.append("     " + paint(action, "accent"))
            else:
                lines += terminal.wrap(action, first="     - ", rest="       ")
    lines += [paint(f"   More: nvattest explain {check.id}", "dim"), ""]
    return lines


def _value(name: str, value: str, terminal: Terminal) -> list[str]:
    lead = f"   {name:<9} "
    room = max(16, (terminal.width - len(lead)) // 16 * 16)
    parts = [value[start : start + room] for start in range(0, min(len(value), room * 4), room)]
    return [lead + parts[0], *(" " * len(lead) + part for part in parts[1:])]


def _overview(view: AppraisalView, terminal: Terminal) -> list[str]:
    if not view.devices:
        return []
    lines = [] if view.causes else [""]
    lines += _section("DEVICES", "", terminal)
    model = max(8, terminal.width - 59)
    lines.append(
        terminal.paint(f"  {'':<9}   {'model':<{model}} {'driver':<12}{'firmware':<16}{'mode':<6}verdict", "dim")
    )
    for device in view.devices:
        failed = sum(check.outcome != "skipped" for check in device.failures)
        word = "trusted" if device.trusted else f"{failed or len(device.failures)} failed"
        mark = terminal.paint(
            *((terminal.sign("✓", "+"), "good") if device.trusted else (terminal.sign("✗", "X"), "bad"))
        )
        name = device.hwmodel or device.architecture or "unknown"
        lines.append(
            f"  {fit(device.label, 9)} {mark} {fit(name, model)} {fit(device.driver_version or '-', 11)} "
            f"{fit(device.firmware_version or '-', 15)} {fit(device.mode or '-', 5)} "
            + terminal.paint(word, "good" if device.trusted else "bad")
        )
    return lines


def _section(title: str, note: str, terminal: Terminal) -> list[str]:
    head = terminal.paint(title, "bold") + (f"  {terminal.paint(note, 'dim')}" if note else "")
    return [head, terminal.rule()]


def _device_story(device: DeviceView, terminal: Terminal) -> list[str]:
    known = [device.architecture, device.chip, device.board and f"board {device.board}", device.mode]
    lines = _section(device.label, "  ".join(part for part in known if part), terminal)
    rows = [
        ("identity", device.ueid and f"ueid {device.ueid}"),
        ("", device.pdi and f"PDI {device.pdi}"),
        ("evidence", f"from {device.origin}" if " " in device.origin else ""),
        ("report", device.report_sha256),
        ("chain", device.chain_sha256),
        ("opaque data", device.opaque),
    ]
    for name, value in rows:
        if value:
            lines += terminal.wrap(value, first=f"  {name:<12}", rest=" " * 14)
    lines += ["", terminal.paint("  The story", "bold"), *_steps(device.checks, terminal)]
    lines += ["", *measurement_map(device, terminal)]
    if device.chain is not None:
        lines += ["", terminal.paint("  Device chain", "bold"), *_chain(device.chain, terminal)]
    for rim in device.rims:
        lines += ["", *_rim(rim, terminal)]
    if device.svn:
        lines += ["", terminal.paint("  Minimum security versions", "bold")]
        for cell in device.svn:
            mark = terminal.paint("ok  ", "good") if cell.satisfied else terminal.paint("LOW ", "bad")
            found = "not reported" if cell.runtime is None else str(cell.runtime)
            lines.append(f"    {mark} {cell.name}: {found}, at least {cell.minimum} is demanded")
    return lines


def _steps(checks: tuple[CheckView, ...], terminal: Terminal) -> list[str]:
    lines = []
    for check in checks:
        sign, word, style = _OUTCOMES.get(check.outcome, ("?", check.outcome, "warn"))
        if check.acceptable and check.outcome != "pass":
            sign, word, style = "○", "allowed", "warn"
        step = "" if check.step is None else str(check.step)
        mark = terminal.sign(sign, {"✓": "+", "✗": "X", "○": "o"}.get(sign, "?"))
        lead = f"  {step:>3} {mark} "
        said = f"{check.title}: {check.detail}" if check.detail else check.title
        tail = "" if word in ("ok", "skip") else f" [{word}]"
        first, *rest = terminal.wrap(said + tail, first=lead)
        body = first[len(lead) :]
        if style == "good":
            lines.append(f"  {step:>3} {terminal.paint(mark, 'good')} {body}")
            lines += rest
        else:
            lines.append(f"  {step:>3} " + terminal.paint(f"{mark} {body}", style))
            lines += [terminal.paint(line, style) for line in rest]
        if check.tolerated_by:
            lines.append(terminal.paint(f"        allowed by the policy: {check.tolerated_by}", "warn"))
        if not check.acceptable and check.outcome != "skipped":
            for name, value in (("expected", check.expected), ("found", check.found)):
                if value:
                    lines += terminal.wrap(f"{name} {short_hex(value, 48)}", first="        ")
    return lines


def _rim(rim: RimView, terminal: Terminal) -> list[str]:
    lines = [terminal.paint("  RIM ", "bold") + rim.id]
    if not rim.sha256:
        return [*lines, terminal.paint(f"      {rim.role}: not there, or not readable", "bad")]
    origin = rim.origin and f" ({rim.origin})"
    lines += terminal.wrap(
        f"{rim.role}, {rim.product} {rim.edition} {rim.version}, from the {rim.source}{origin}", first="      "
    )
    lines.append(f"      SHA-256 {rim.sha256}")
    if rim.chain is not None:
        ends = [cert.not_after for cert in rim.chain.certificates if cert.not_after]
        if ends:
            lines.append(f"      signers until {min(ends)}")
        lines += _chain(rim.chain, terminal)
    return lines


def _chain(chain: ChainView, terminal: Terminal) -> list[str]:
    lines = []
    findings: dict[int | None, list[str]] = {}
    for position, _, message in chain.findings:
        findings.setdefault(position, []).append(message)
    depth = len(chain.certificates)
    for level, (position, certificate) in enumerate(reversed(list(enumerate(chain.certificates)))):
        branch = "" if level == 0 else "  " * (level - 1) + terminal.sign("└─ ", "`- ")
        lead = "    " + branch
        name = certificate.name if len(lead) + len(certificate.name) <= terminal.width else fit(
            certificate.name, terminal.width - len(lead)
        ).rstrip()  # fmt: skip
        lines.append(lead + terminal.paint(name, "bold"))
        below = "    " + "  " * level + ("   " if level else "  ")
        for text, style in _certificate(certificate, level, depth, chain):
            lines += [terminal.paint(line, style) for line in terminal.wrap(text, first=below)]
        for message in findings.get(position, ()):
            lines += [terminal.paint(line, "bad") for line in terminal.wrap(message, first=below)]
    for message in findings.get(None, ()):
        lines += [terminal.paint(line, "bad") for line in terminal.wrap(message, first="    ")]
    return lines


def _certificate(certificate: CertificateView, level: int, depth: int, chain: ChainView) -> list[tuple[str, str]]:
    begin, end = certificate.not_before[:10], certificate.not_after[:10]
    role = ""
    if level == 0:
        role = ", pinned root" if chain.anchor and chain.path_ok else ", NOT a pinned root"
    elif level == depth - 1:
        role = ", leaf"
    lines = [(f"{begin} to {end}{role}", "bad" if role.startswith(", NOT") else "dim")]
    answer = certificate.revocation
    if answer is not None:
        reason = f" ({answer.reason})" if answer.reason and answer.reason != answer.status else ""
        until = f", until {answer.next_update}" if answer.next_update else ""
        source = f" from the {answer.source}" if answer.source else ""
        by = f", by {answer.responder}" if answer.responder else ""
        detail = f"; {answer.detail}" if not answer.good and answer.detail and answer.detail != answer.status else ""
        word = "not revoked" if answer.good else answer.status.upper()
        lines.append((f"{word}{reason}{source}{until}{by}{detail}", "good" if answer.good else "bad"))
    return lines


__all__ = ["explain_appraisal_json", "render_appraisal_view", "verdict_word"]
