"""The report page: an appraisal as one HTML file that needs nothing else, for auditors and tickets.

Jinja2 with autoescape draws it; no script is on it, and its content security policy allows none: whatever evidence
says, it stays text. The same appraisal gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Final

from nvattest._text import clean
from nvattest._version import __version__
from nvattest.errors import InputError, ResultCode
from nvattest.report.diagnosis import diagnose, failures, telling
from nvattest.report.figures import grid_height, measurement_squares, timelines, topology, trust_diagram
from nvattest.report.reading import AppraisalView, DeviceView, listed
from nvattest.report.text import SOURCES, count_states, sources_of

_FOLDER: Final = os.path.dirname(os.path.abspath(__file__))
_TEMPLATE: Final = "template.html.j2"
_STYLE: Final = "report.css"


def report_page(
    view: AppraisalView, *, source: str = "", sha256: str = "", everything: bool = False, device: str | None = None
) -> str:
    """The page of an appraisal.

    Args:
        view: the appraisal, read from its file.
        source: the name of the file that it was made from.
        sha256: the digest of that file, hex.
        everything: every device is open, on paper too; else those that failed (of several that failed alike, the
            first), or one as an example.
        device: this device is open too, by its label.

    Raises:
        InputError: there is no such device, or Jinja2 is not installed (``report-extra``).
    """
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "a page needs Jinja2, which is not installed",
            code="report-extra",
            result_code=ResultCode.FEATURE_NOT_ENABLED,
            hint="pip install 'nvattest[report]'; without --html the same is shown as text",
        ) from error
    opened = telling(view) | (set() if device is None else {view.demand(device).label})
    with open(os.path.join(_FOLDER, _STYLE), encoding="utf-8") as file:
        style = _tidy(file.read())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    page: str = environment.get_template(_TEMPLATE).render(
        view=view,
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        program=__version__,
        source=clean(source),
        sha256=clean(sha256),
        subtitle=_subtitle(view),
        failures=[(failure, diagnose(failure.check, view)) for failure in failures(view)],
        topology=topology(view),
        timelines=timelines(view),
        devices=[_device(entry, view, opened=everything or entry.label in opened) for entry in view.devices],
        folded=any(not device.trusted and device.label not in opened for device in view.devices) and not everything,
        sources=SOURCES,
        listed=listed,
        chunks=_chunks,
    )
    return _tidy(page) + "\n"


def _tidy(text: str) -> str:
    """Without blank lines, which macros leave: the doctype must come first. The style is tidied before its digest."""
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def _device(device: DeviceView, view: AppraisalView, *, opened: bool) -> dict[str, object]:
    squares = measurement_squares(device)
    # One device of a trusted platform is shown open, as an example of what was checked.
    first = view.trusted and bool(view.devices) and device is view.devices[0]
    return {
        "view": device,
        "open": opened or first,
        "diagram": trust_diagram(device),
        "squares": squares,
        "grid_height": grid_height(squares),
        "counts": count_states(device),
        "letters": sources_of(device),
    }


def _subtitle(view: AppraisalView) -> str:
    total = len(view.devices)
    word = "device" if total == 1 else "devices"
    if not total:
        return "The appraisal holds no device: nothing was proven."
    if view.trusted:
        return f"All required checks of {total} {word} and of the platform came out well."
    bad = [device.label for device in view.devices if not device.trusted]
    if bad and total == 1:
        return f"{bad[0]} is the only device, and it failed."
    if bad:
        return f"{len(bad)} of {total} devices failed: {listed(bad, maximum=4)}. A platform is trusted only as a whole."
    if view.causes:
        return f"Each of the {total} {word} passed for itself, and the platform as a whole did not."
    return "The file does not hold what a verdict needs."


def _chunks(text: str, size: int = 16) -> list[str]:
    """A long value in parts between which a line may break."""
    return [text[start : start + size] for start in range(0, len(text), size)] or [""]
