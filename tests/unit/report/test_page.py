"""The report page: self-contained, escaped, the same bytes each time; in Chromium where there is one."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nvattest.errors import InputError
from nvattest.report import page as pages
from nvattest.report.page import FIELD, LEFT, NODE_WIDTH, Box, timelines, topology, trust_diagram
from nvattest.report.reading import AppraisalView, read_appraisal

pytest.importorskip("jinja2", reason="the extra 'report' is not installed")

Appraise = Callable[..., dict[str, Any]]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Reader(HTMLParser):
    """Collects tags and attributes, and sees to it that tags close."""

    VOID = ("meta", "br", "wbr", "circle", "path", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID and tag not in ("li", "dt", "dd"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and tag not in ("li", "dt", "dd"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report_page(
    document: object, *, source: str = "", sha256: str = "", everything: bool = False, device: str | None = None
) -> str:
    view = read_appraisal(document)
    return pages.report_page(view, source=source, sha256=sha256, everything=everything, device=device)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.mark.parametrize(
    ("platform", "lie"),
    [
        ("hopper-8-ppcie", None),
        ("hopper-8-ppcie", "gpu3:measurement=9"),
        ("hopper-8-ppcie", "driver-rim:revoked=1"),
        ("hopper-8-ppcie", "gpu5:topology=foreign"),
        ("blackwell-8-mpt", "gpu2:debug"),
        ("hopper-1", "vbios-rim:missing"),
        ("hopper-1", "gpu0:chain-format"),
        ("hopper-1", "gpu0:truncate=40"),
    ],
)
def test_the_page_is_whole_and_asks_nobody_for_anything(appraise: Appraise, platform: str, lie: str | None) -> None:
    page = report_page(appraise(platform, *([lie] if lie else [])), source="appraisal.json", sha256="ab" * 32)
    assert page.startswith("<!DOCTYPE html>")
    reader = read(page)
    assert reader.tags.isdisjoint({"script", "iframe", "object", "embed", "link", "img", "form", "base", "a"})
    names = {name for _, name, _ in reader.attributes}
    assert names.isdisjoint({"src", "href", "style", "srcset", "action"})
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in page
    assert "@import" not in page
    assert ("Not trusted" in reader.text) is (lie is not None)


def test_the_policy_allows_nothing_but_the_style_of_the_page(appraise: Appraise) -> None:
    page = report_page(appraise())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert html.unescape(policy.group(1)) == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&lt;</style></title>{{ 7*7 }}{% raw %}\x1b[2J\u202e"


def poison(value: object) -> object:
    """The same document with every text replaced, keys and the words that steer the display apart."""
    if isinstance(value, dict):
        kept = ("format", "outcome", "state", "source", "role", "kind", "not_before", "not_after", "device", "rim")
        return {key: item if key in kept and isinstance(item, str) else poison(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    return EVIL if isinstance(value, str) else value


@pytest.mark.parametrize("lie", ["gpu3:measurement=9", "gpu5:topology=foreign", "driver-rim:revoked=1"])
def test_markup_in_evidence_stays_text(appraise: Appraise, lie: str) -> None:
    clean_tags = read(report_page(appraise("hopper-8-ppcie", lie))).tags
    evil = poison(appraise("hopper-8-ppcie", lie))
    assert isinstance(evil, dict)
    evil["policy"] = {EVIL: EVIL}  # the names of its settings are the only keys that are shown
    page = report_page(evil, source=EVIL, sha256=EVIL)
    reader = read(page)
    assert reader.tags <= clean_tags
    assert "<script" not in page
    assert "<img" not in page
    assert not set(page) & set("\x1b\u202e")
    assert not any(name.startswith("on") for _, name, _ in reader.attributes)
    assert "<script>alert(1)</script>" in reader.text
    assert "{{ 7*7 }}" in reader.text


def test_the_same_appraisal_gives_the_same_bytes(appraise: Appraise) -> None:
    assert report_page(appraise()) == report_page(appraise())


ODD: tuple[object, ...] = (None, "x", [], 5, {}, [1, None], True)


def changed_at_each_place(appraise: Appraise) -> Iterator[Callable[[object], dict[str, object]]]:
    """For each of some thirty places of an appraisal what puts a value there."""
    for key in appraise()["devices"][0]:

        def in_the_device(value: object, key: str = key) -> dict[str, object]:
            document = appraise()
            document["devices"][0][key] = value
            return document

        yield in_the_device
    for key in appraise():
        if key != "format":
            yield lambda value, key=key: {**appraise(), key: value}


def test_a_value_of_another_kind_in_each_place_gives_a_page(appraise: Appraise) -> None:
    for place, value in zip(changed_at_each_place(appraise), itertools.cycle(ODD), strict=False):
        read(report_page(place(value)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("value", ODD)
def test_any_value_in_any_place_gives_a_page(appraise: Appraise, value: object) -> None:
    for place in changed_at_each_place(appraise):
        read(report_page(place(value)))


def test_what_is_no_appraisal_gives_no_page() -> None:
    with pytest.raises(InputError):
        report_page({"format": "nvattest-bundle"})


def test_a_missing_jinja_is_named_with_the_extra(appraise: Appraise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(InputError) as caught:
        report_page(appraise())
    assert caught.value.code == "report-extra"
    assert "pip install Jinja2" in caught.value.hint


# -- figures


def test_a_closed_topology_has_32_good_links_and_a_foreign_switch_two_bad_ones(appraise: Appraise) -> None:
    closed = topology(read_appraisal(appraise("hopper-8-ppcie")))
    assert closed is not None
    assert (closed.good, closed.problems, len(closed.nodes)) == (32, (), 12)
    broken = topology(read_appraisal(appraise("hopper-8-ppcie", "gpu5:topology=foreign")))
    assert broken is not None
    assert broken.good == 31
    assert [style for _, _, style in broken.links].count("bad") == 2
    assert sum(node.style == "ghost" for node in broken.nodes) == 1
    assert any("GPU-5 does not name" in problem for problem in broken.problems)
    for node in broken.nodes:
        assert 0 <= node.x <= broken.width - NODE_WIDTH


def test_there_is_no_topology_picture_without_switches(appraise: Appraise) -> None:
    assert topology(read_appraisal(appraise("blackwell-8-mpt"))) is None


def boxes_of(view: AppraisalView, *styles: str) -> list[Box]:
    """The boxes of these styles in the diagram of the first device, column by column, then the foot."""
    columns, foot = trust_diagram(view.devices[0])
    boxes = [box for _, column in columns for box in column]
    return [box for box in (*boxes, foot) if box is not None and (not styles or box.style in styles)]


def test_the_diagram_shows_the_revoked_certificate_and_stays_in_its_field(appraise: Appraise) -> None:
    view = read_appraisal(appraise("hopper-1", "driver-rim:revoked=0,keyCompromise"))
    diagram = trust_diagram(view.devices[0])
    assert len(diagram.columns) == 3
    assert any("REVOKED: keyCompromise" in box.lines for box in boxes_of(view, "bad"))
    page = report_page(appraise("hopper-1", "driver-rim:revoked=0,keyCompromise"))
    [(width, height, drawing)] = re.findall(
        r'<svg class="chains[^>]* viewBox="-2 -2 (\d+) (\d+)"(.*?)</svg>', page, re.DOTALL
    )
    boxes = re.findall(r'<rect class="box \w+" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', drawing)
    assert len(boxes) == sum(len(column) for _, column in diagram.columns) + 1
    for x, y, wide, high in boxes:
        assert int(x) + int(wide) <= int(width) - 4
        assert int(y) + int(high) <= int(height) - 4


def test_what_a_revoked_signer_signed_is_not_drawn_as_good(appraise: Appraise) -> None:
    view = read_appraisal(appraise("hopper-1", "driver-rim:revoked=0"))
    ends = {box.lines[-1]: box.style for box in boxes_of(view) if box.title == "Golden values"}
    assert ends == {"signed, but not by a good chain": "warn", "signed, for this device": "good"}
    [compared] = [box for box in boxes_of(view) if box.title == "Measurements"]
    assert compared.style == "warn"
    assert compared.lines[0].endswith("golden values match, 1 exempt")


def test_a_leaf_that_says_debug_is_red(appraise: Appraise) -> None:
    view = read_appraisal(appraise("blackwell-1", "gpu0:debug"))
    assert [box.lines[-1] for box in boxes_of(view, "bad")] == ["says: DEBUG"]


def test_the_certificate_that_states_the_flag_is_red_whichever_it_is(appraise: Appraise) -> None:
    view = read_appraisal(appraise("blackwell-1", "gpu0:multi-tcb-info=1,recovery"))
    assert [(box.title, box.lines[-1]) for box in boxes_of(view, "bad")] == [("GB100 A01 GSP BROM", "says: RECOVERY")]


def test_a_diagram_of_one_chain_is_not_blown_up_to_the_page(appraise: Appraise) -> None:
    page = report_page(appraise("rubin-1"))
    [width] = re.findall(r'<svg class="chains" width="(\d+)"', page)
    assert int(width) < 500
    assert re.search(r'<svg class="chains broad" width="\d+"', report_page(appraise("hopper-1")))


def test_the_timeline_says_what_ends_first(appraise: Appraise) -> None:
    certificates, answers = timelines(read_appraisal(appraise("hopper-1")))
    assert certificates.first == "HCC RIM L4 Signer, 2027-11-01"
    assert answers.first.endswith("2026-11-01 23:45 UTC")


def test_the_grid_has_64_squares(appraise: Appraise) -> None:
    page = report_page(appraise("hopper-1", "gpu0:measurement=9"))
    squares = re.findall(
        r'<title>index (\d+): ([\w-]+)[^<]*</title><rect class="cell ([\w-]+)" x="(\d+)" y="(\d+)"', page
    )
    assert [int(index) for index, *_ in squares] == list(range(64))
    assert squares[9] == ("9", "mismatched", "mismatched", "44", "44")
    assert squares[35][1:3] == ("exempt", "exempt")
    assert squares[63] == ("63", "not-covered", "not-covered", "308", "308")


def test_an_expired_certificate_is_red_on_the_timeline(appraise: Appraise) -> None:
    good = timelines(read_appraisal(appraise("hopper-1")))
    assert [line.title for line in good] == ["Certificates", "Revocation answers"]
    assert all(bar.style == "good" for line in good for bar in line.bars)
    bad = timelines(read_appraisal(appraise("hopper-1", "driver-rim:expired=0")))
    assert any(bar.style == "bad" for bar in bad[0].bars)
    for line in (*good, *bad):
        for bar in line.bars:
            assert bar.x >= LEFT
            assert bar.x + bar.width <= LEFT + FIELD + 2


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("lie", [None, "gpu3:measurement=9"])
def test_chromium_draws_the_page_without_a_word_of_complaint(
    appraise: Appraise, tmp_path: Path, lie: str | None
) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_page(appraise("hopper-8-ppcie", *([lie] if lie else []))), encoding="utf-8")
    result = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,1600",
            f"--screenshot={tmp_path / 'page.png'}", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    picture = (tmp_path / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 40_000, "an unstyled page or an empty one is smaller"
    assert "CONSOLE" not in result.stderr, result.stderr


def opened(page: str) -> int:
    return page.count("<details open")


def test_devices_that_failed_are_open_and_all_of_them_when_asked(appraise: Appraise) -> None:
    node = appraise("hopper-8-ppcie", "gpu3:measurement=9")
    assert opened(report_page(node)) == 1
    assert opened(report_page(node, device="switch-2")) == 2
    assert opened(report_page(node, everything=True)) == 12
    assert "failed alike" not in report_page(node)
    with pytest.raises(InputError, match="GPU-9"):
        report_page(node, device="GPU-9")


def test_of_devices_that_failed_alike_the_first_is_open(appraise: Appraise) -> None:
    node = appraise("hopper-8-ppcie", "driver-rim:revoked=1", "gpu5:measurement=9")
    page = report_page(node)
    assert [index for index in range(12) if f'<details open id="device-{index}">' in page] == [0, 5]
    assert "Of devices that failed alike the first is open." in page
    assert opened(report_page(node, everything=True)) == 12


def test_the_verdict_stands_beside_what_it_is_worth(appraise: Appraise) -> None:
    top = report_page(appraise()).partition("</header>")[0]
    assert "not verified again and carries no signature" in top
    assert "Simulated." in top
    assert "the only device, and it failed" in report_page(appraise("blackwell-1", "gpu0:debug"))
