"""Who names whom on a node of GPUs and switches: in words, and as the picture of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nvattest.report.model import AppraisalView


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


def disagreements(view: AppraisalView) -> tuple[str, ...]:
    """What does not fit in who names whom, in words; nothing where there are not both GPUs and switches."""
    gpus = [device for device in view.devices if not device.is_switch]
    switches = [device for device in view.devices if device.is_switch]
    if not gpus or not switches:
        return ()
    present = {device.pdi for device in view.devices if device.pdi}
    problems: list[str] = []
    for gpu in gpus[:_MAXIMUM_NODES]:
        for switch in switches[:_MAXIMUM_NODES]:
            forth, back = switch.pdi in gpu.neighbours, gpu.pdi in switch.neighbours
            if not forth and not back:
                problems.append(f"{gpu.label} and {switch.label} do not name each other")
            elif not (forth and back):
                silent, other = (switch, gpu) if forth else (gpu, switch)
                problems.append(f"{silent.label} does not name {other.label}, which names it")
    for device in (*gpus[:_MAXIMUM_NODES], *switches[:_MAXIMUM_NODES]):
        word = "GPU" if device.is_switch else "switch"
        problems += [
            f"{device.label} names the {word} {pdi}, which is not here"
            for pdi in dict.fromkeys(device.neighbours)
            if pdi not in present
        ]
    return tuple(problems)


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
    for gpu in gpus:
        for switch in switches:
            forth, back = switch.pdi in gpu.neighbours, gpu.pdi in switch.neighbours
            if forth or back:
                links.append(_link(places[gpu.label], places[switch.label], good=forth and back))
        links += [_link(places[gpu.label], places[pdi], good=False) for pdi in gpu.neighbours if pdi in ghosts[True]]
    for switch in switches:
        links += [
            _link(places[pdi], places[switch.label], good=False) for pdi in switch.neighbours if pdi in ghosts[False]
        ]
    good = sum(link.style == "good" for link in links)
    return Topology(
        width=width, height=210 + _NODE_HEIGHT, nodes=tuple(nodes),
        links=tuple(sorted(links, key=lambda link: link.style == "bad")), good=good, problems=disagreements(view),
    )  # fmt: skip


def _link(upper: tuple[int, int], lower: tuple[int, int], *, good: bool) -> Link:
    return Link(x1=upper[0], y1=upper[1] + _NODE_HEIGHT, x2=lower[0], y2=lower[1], style="good" if good else "bad")
