"""The geometry of the page's figures, as plain numbers and words; the template draws and escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from nvattest.errors import InputError
from nvattest.explain.model import AppraisalView, CertificateView, ChainView, DeviceView
from nvattest.explain.render_map import CELLS, COLUMNS, SOURCES, grid
from nvattest.model import parse_time

_MAXIMUM_BARS: Final = 40
_FAR: Final = datetime(2200, 1, 1, tzinfo=timezone.utc)


# -- the trust-chain diagram ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box of a diagram. ``style`` is good, bad, warn or plain; ``lines`` are the small texts under the title."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...]
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """A line with a head from one point to another."""

    x1: int
    y1: int
    x2: int
    y2: int
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagram:
    """Boxes and arrows in a field; ``columns`` are (x, heading)."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    columns: tuple[tuple[int, str], ...]


_BOX_WIDTH: Final = 300
_BOX_HEIGHT: Final = 64
_GAP: Final = 26
_TOP: Final = 30


def trust_diagram(device: DeviceView) -> Diagram:
    """Device root to report on the left, RIM root to golden values beside it, and the comparison below both."""
    chains: list[tuple[str, ChainView | None, Box]] = []
    report_ok = _passed(device, "report-signature", "report-format")
    versions = " ".join(part for part in (device.driver_version, device.firmware_version) if part)
    said = "signed by the leaf key" if report_ok else "SIGNATURE NOT GOOD"
    end = _box("Report", (versions or "signed measurements", said),
               "good" if report_ok else "bad")  # fmt: skip
    chains.append(("Device", device.chain, end))
    for rim in device.rims:
        signed = _passed(device, f"{rim.role}-rim-signature", f"{rim.role}-rim-binding")
        word = {"driver": "Driver RIM", "vbios": "VBIOS RIM", "bios": "BIOS RIM"}.get(rim.role, "RIM")
        state = "signed, for this device" if signed else "NOT THERE" if not rim.sha256 else "NOT ACCEPTED"
        chains.append((word, rim.chain, _box(rim.id, (state,), "good" if signed else "bad")))
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    deepest = max([len(chain.certificates) if chain else 1 for _, chain, _ in chains])
    bottom = _TOP + deepest * (_BOX_HEIGHT + _GAP)
    centres = []
    for column, (_, chain, last) in enumerate(chains):
        x = column * (_BOX_WIDTH + _GAP)
        centre = x + _BOX_WIDTH // 2
        centres.append((centre, last.style))
        y = _TOP
        previous: int | None = None
        for box in _certificates(chain):
            if previous is not None:
                arrows.append(Arrow(x1=centre, y1=previous, x2=centre, y2=y, style=box.style))
            boxes.append(_placed(box, x, y))
            previous = y + _BOX_HEIGHT
            y += _BOX_HEIGHT + _GAP
        if previous is not None:
            arrows.append(Arrow(x1=centre, y1=previous, x2=centre, y2=bottom, style=last.style))
        boxes.append(_placed(last, x, bottom))
    total = len(chains) * (_BOX_WIDTH + _GAP) - _GAP
    matched = _passed(device, "measurements")
    covered = [cell for cell in device.cells or () if cell.state != "not-covered"]
    bad, exempt = len(device.bad_cells), sum(cell.state == "exempt" for cell in covered)
    words = (
        "not compared"
        if device.cells is None
        else f"{len(covered) - bad - exempt} of {len(covered)} golden values match"
    )
    words += f", {exempt} exempt" if exempt else ""
    compare_y = bottom + _BOX_HEIGHT + 2 * _GAP
    boxes.append(
        Box(
            x=0,
            y=compare_y,
            width=total,
            height=48,
            title="Measurements",
            lines=(words,),
            style="good" if matched else "bad",
        )
    )
    arrows += [
        Arrow(x1=centre, y1=bottom + _BOX_HEIGHT, x2=centre, y2=compare_y, style=style if matched else "bad")
        for centre, style in centres
    ]
    return Diagram(
        width=total, height=compare_y + 50, boxes=tuple(boxes), arrows=tuple(arrows),
        columns=tuple((index * (_BOX_WIDTH + _GAP), word) for index, (word, _, _) in enumerate(chains)),
    )  # fmt: skip


def _passed(device: DeviceView, *ids: str) -> bool:
    outcome = {check.id: check.outcome for check in device.checks}
    return all(outcome.get(name) == "pass" for name in ids)


def _box(title: str, lines: tuple[str, ...], style: str) -> Box:
    return Box(x=0, y=0, width=_BOX_WIDTH, height=_BOX_HEIGHT, title=_short(title), lines=lines, style=style)


def _placed(box: Box, x: int, y: int) -> Box:
    return Box(x=x, y=y, width=box.width, height=box.height, title=box.title, lines=box.lines, style=box.style)


def _short(text: str, maximum: int = 30) -> str:
    return text if len(text) <= maximum else f"{text[: maximum // 2]}…{text[-(maximum - maximum // 2 - 1) :]}"


def _certificates(chain: ChainView | None) -> list[Box]:
    if chain is None or not chain.certificates:
        return [_box("no chain", ("nothing could be read",), "bad")]
    found = []
    broken = {position for position, _, _ in chain.findings}
    last = len(chain.certificates) - 1
    for position in range(last, -1, -1):
        certificate = chain.certificates[position]
        lines = [_validity(certificate)]
        style = "plain"
        answer = certificate.revocation
        if position in broken:
            style = "bad"
            lines.append(next(rule for at, rule, _ in chain.findings if at == position).replace("-", " ").upper())
        elif answer is not None:
            style = "good" if answer.good else "bad"
            reason = f": {answer.reason}" if answer.reason and answer.reason != answer.status else ""
            lines.append(f"not revoked ({answer.source})" if answer.good else f"{answer.status.upper()}{reason}")
        elif position == last:
            style = "good" if chain.path_ok else "bad"
            lines.append("pinned root" if chain.path_ok and chain.anchor else "NOT a pinned root")
        elif position == 0:
            style = "plain" if chain.path_ok else "warn"
            lines.append("leaf: has no revocation service")
        else:
            lines.append("revocation was not asked")
            style = "warn"
        found.append(_box(certificate.name, tuple(lines[:2]), style))
    return found


def _validity(certificate: CertificateView) -> str:
    return f"{certificate.not_before[:10]} – {certificate.not_after[:10]}"


# -- the measurement grid ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """One place of the grid."""

    index: int
    x: int
    y: int
    state: str
    letter: str
    alternatives: int
    title: str


_SIDE: Final = 40
_STEP: Final = 44


def measurement_squares(device: DeviceView) -> tuple[Square, ...]:
    """The squares of the grid, row by row; none where nothing was compared."""
    if device.cells is None:
        return ()
    found = []
    for index, cell in enumerate(grid(device.cells)):
        state = "empty" if cell is None else cell.state
        letter, source = SOURCES.get(cell.source if cell is not None else "", ("", "no RIM"))
        count = len(cell.golden) if cell is not None else 0
        words = f"index {index}: {state}" + (f", {source}, {count} golden" if count else "")
        found.append(
            Square(
                index=index, x=index % COLUMNS * _STEP, y=index // COLUMNS * _STEP, state=state, letter=letter,
                alternatives=count, title=words,
            )
        )  # fmt: skip
    return tuple(found)


def grid_height(squares: Sequence[Square]) -> int:
    """The height of the grid."""
    return max([CELLS // COLUMNS * _STEP, *(square.y + _STEP for square in squares)]) - (_STEP - _SIDE)


# -- the topology of a PPCIE node --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One device of the picture. ``style`` is good, bad or ghost (named by others and not here)."""

    x: int
    y: int
    width: int
    label: str
    note: str
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link that both ends name (good), that only one end names (bad), or to a device that is not here (bad)."""

    x1: int
    y1: int
    x2: int
    y2: int
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The picture: GPUs above, switches below, and in words what is wrong."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    good: int
    problems: tuple[str, ...]


_NODE_HEIGHT: Final = 46
_SPACE: Final = 116
_NODE_WIDTH: Final = 100
_MAXIMUM_NODES: Final = 16


def topology(view: AppraisalView) -> Topology | None:
    """The picture of who names whom, or None where there are not both GPUs and switches."""
    gpus = [device for device in view.devices if not device.is_switch]
    switches = [device for device in view.devices if device.is_switch]
    if not gpus or not switches or len(gpus) > _MAXIMUM_NODES or len(switches) > _MAXIMUM_NODES:
        return None
    present = {device.pdi for device in view.devices if device.pdi}
    ghosts = {
        False: sorted({pdi for switch in switches for pdi in switch.neighbours if pdi not in present})[:4],
        True: sorted({pdi for gpu in gpus for pdi in gpu.neighbours if pdi not in present})[:4],
    }
    rows = ((gpus, ghosts[False], 0), (switches, ghosts[True], 210))
    width = max(len(row) + len(lost) for row, lost, _ in rows) * _SPACE - (_SPACE - _NODE_WIDTH)
    places: dict[str, tuple[int, int]] = {}
    nodes = []
    for row, lost, y in rows:
        room = width / (len(row) + len(lost))
        for column, device in enumerate(row):
            x = round(room * column + (room - _NODE_WIDTH) / 2)
            places[device.label] = (x + _NODE_WIDTH // 2, y)
            nodes.append(
                Node(x=x, y=y, width=_NODE_WIDTH, label=device.label, note=device.pdi[-8:] or "no PDI",
                     style="good" if device.trusted else "bad")
            )  # fmt: skip
        for column, pdi in enumerate(lost, len(row)):
            x = round(room * column + (room - _NODE_WIDTH) / 2)
            places[pdi] = (x + _NODE_WIDTH // 2, y)
            nodes.append(Node(x=x, y=y, width=_NODE_WIDTH, label="not here", note=pdi[-8:], style="ghost"))
    links: list[Link] = []
    problems: list[str] = []
    for gpu in gpus:
        for switch in switches:
            forth, back = switch.pdi in gpu.neighbours, gpu.pdi in switch.neighbours
            if not forth and not back:
                problems.append(f"{gpu.label} and {switch.label} do not name each other")
                continue
            if not (forth and back):
                silent, other = (switch, gpu) if forth else (gpu, switch)
                problems.append(f"{silent.label} does not name {other.label}, which names it")
            links.append(_link(places[gpu.label], places[switch.label], good=forth and back))
        for pdi in gpu.neighbours:
            if pdi in ghosts[True]:
                problems.append(f"{gpu.label} names the switch {pdi}, which is not here")
                links.append(_link(places[gpu.label], places[pdi], good=False))
    for switch in switches:
        for pdi in switch.neighbours:
            if pdi in ghosts[False]:
                problems.append(f"{switch.label} names the GPU {pdi}, which is not here")
                links.append(_link(places[pdi], places[switch.label], good=False))
    good = sum(link.style == "good" for link in links)
    return Topology(
        width=width, height=210 + _NODE_HEIGHT, nodes=tuple(nodes),
        links=tuple(sorted(links, key=lambda link: link.style == "bad")), good=good, problems=tuple(problems),
    )  # fmt: skip


def _link(upper: tuple[int, int], lower: tuple[int, int], *, good: bool) -> Link:
    return Link(x1=upper[0], y1=upper[1] + _NODE_HEIGHT, x2=lower[0], y2=lower[1], style="good" if good else "bad")


# -- the timeline of validities ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One validity. ``x`` and ``width`` are in the field; ``before`` and ``after`` say that it goes on beyond it."""

    y: int
    x: float
    width: float
    label: str
    span: str
    style: str
    before: bool
    after: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Bars against a clock. ``ticks`` are (x, label); ``now`` is the place of the clock."""

    title: str
    left: int
    width: int
    height: int
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    now: float
    clock: str


_LEFT: Final = 300
_FIELD: Final = 560
_ROW: Final = 26


def timelines(view: AppraisalView) -> tuple[Timeline, ...]:
    """Certificates in years and revocation answers in hours, each once, against the clock that they were judged by."""
    clock = _instant(view.device_time)
    rim_clock = _instant(view.rim_time) or clock
    if clock is None or rim_clock is None:
        return ()
    chains = [(device.chain, clock) for device in view.devices if device.chain is not None]
    chains += [(rim.chain, rim_clock) for device in view.devices for rim in device.rims if rim.chain is not None]
    certificates: dict[tuple[str, str, str], tuple[datetime, datetime, datetime]] = {}
    answers: dict[tuple[str, str, str], tuple[datetime, datetime, datetime]] = {}
    for chain, moment in chains:
        for certificate in chain.certificates:
            begin, end = _instant(certificate.not_before), _instant(certificate.not_after)
            if begin is not None and end is not None:
                certificates.setdefault(
                    (certificate.name, certificate.not_before, certificate.not_after), (begin, end, moment)
                )
            answer = certificate.revocation
            if answer is None:
                continue
            begin, end = _instant(answer.this_update), _instant(answer.next_update)
            if begin is not None and end is not None:
                answers.setdefault((certificate.name, answer.this_update, answer.next_update), (begin, end, moment))
    found = []
    if certificates:
        found.append(_timeline("Certificates", certificates, clock, timedelta(days=365 * 4), year=True))
    if answers:
        found.append(_timeline("Revocation answers", answers, clock, timedelta(hours=36), year=False))
    return tuple(found)


def _instant(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except InputError:
        return None


def _timeline(
    title: str,
    spans: dict[tuple[str, str, str], tuple[datetime, datetime, datetime]],
    clock: datetime,
    half: timedelta,
    *,
    year: bool,
) -> Timeline:
    start = max(clock, datetime(1900, 1, 1, tzinfo=timezone.utc)) - half
    stop = min(clock, _FAR) + half
    length = (stop - start).total_seconds()

    def place(moment: datetime) -> float:
        share = (min(max(moment, start), stop) - start).total_seconds() / length
        return round(_LEFT + share * _FIELD, 1)

    # One row per name and span: sixteen devices share all but their own two certificates.
    rows: dict[tuple[str, datetime, datetime], list[datetime]] = {}
    for (name, _, _), (begin, end, moment) in spans.items():
        rows.setdefault((name, begin, end), []).append(moment)
    bars = []
    ordered = sorted(rows.items(), key=lambda item: (item[0][2], item[0][0]))[:_MAXIMUM_BARS]
    for position, ((name, begin, end), moments) in enumerate(ordered):
        good = all(begin <= moment <= end for moment in moments)
        x = place(begin)
        bars.append(
            Bar(
                y=position * _ROW, x=x, width=max(2.0, round(place(end) - x, 1)), label=_short(name, 40),
                span=_span(begin, end, year=year), style="good" if good else "bad",
                before=begin < start, after=end > stop,
            )
        )  # fmt: skip
    return Timeline(
        title=title, left=_LEFT, width=_LEFT + _FIELD, height=len(bars) * _ROW, bars=tuple(bars),
        # The label of the clock stands above; one of the axis right below it would be struck through by its line.
        ticks=tuple(
            (place(moment), label if abs(place(moment) - place(clock)) > _ROW else "")
            for moment, label in _ticks(start, stop, year=year)
        ),
        now=place(clock), clock=f"{clock:%Y-%m-%d}" if year else f"{clock:%Y-%m-%d %H:%M}",
    )  # fmt: skip


def _span(begin: datetime, end: datetime, *, year: bool) -> str:
    if year:
        return f"{begin.date()} – {end.date()}"
    return f"{begin:%Y-%m-%d %H:%M} – {end:%Y-%m-%d %H:%M} UTC"


def _ticks(start: datetime, stop: datetime, *, year: bool) -> list[tuple[datetime, str]]:
    if year:
        years = range(start.year + 1, stop.year + 1)
        return [(datetime(number, 1, 1, tzinfo=timezone.utc), str(number)) for number in years]
    moment = start.replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    while moment <= stop:
        if moment >= start:
            found.append((moment, f"{moment:%m-%d}" if moment.hour == 0 else f"{moment:%H:%M}"))
        moment += timedelta(hours=12)
    return found
