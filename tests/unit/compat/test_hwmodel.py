"""``hwmodel`` long and short."""

from __future__ import annotations

import pytest

from nvattest.claims.hwmodel import short_hwmodel, with_short_hwmodel


@pytest.mark.parametrize(
    ("long", "short"),
    [("GH100 A01 GSP BROM", "GH100"), ("LS_10 A01 FSP BROM", "LS_10"), ("GB100", "GB100"), ("", "")],
)
def test_the_short_form_is_the_chip(long: str, short: str) -> None:
    assert short_hwmodel(long) == short
    assert with_short_hwmodel({"hwmodel": long, "ueid": "1"}) == {"hwmodel": short, "ueid": "1"}


def test_claims_without_it_stay_as_they_are() -> None:
    assert with_short_hwmodel({"hwmodel": None}) == {"hwmodel": None}
