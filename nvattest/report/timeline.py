"""The page's timeline: what is valid from when to when, against the clock that it was judged by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from nvattest.errors import InputError
from nvattest.model import parse_time
from nvattest.report.figures import shorten
from nvattest.report.model import AppraisalView

_MAXIMUM_BARS: Final = 40
_FAR: Final = datetime(2200, 1, 1, tzinfo=timezone.utc)


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
    """Bars against a clock. ``ticks`` are (x, label), ``now`` is the place of the clock, ``first`` what ends first."""

    title: str
    left: int
    width: int
    height: int
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    now: float
    clock: str
    first: str


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
                y=position * _ROW, x=x, width=max(2.0, round(place(end) - x, 1)), label=shorten(name, 40),
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
        now=place(clock), clock=_moment(clock, year=year),
        first=f"{ordered[0][0][0]}, {_moment(ordered[0][0][2], year=year)}",
    )  # fmt: skip


def _moment(moment: datetime, *, year: bool) -> str:
    return f"{moment.date()}" if year else f"{moment:%Y-%m-%d %H:%M} UTC"


def _span(begin: datetime, end: datetime, *, year: bool) -> str:
    return f"{_moment(begin, year=year)} – {_moment(end, year=year)}"


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
