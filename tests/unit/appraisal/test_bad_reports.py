"""Reports that can be read and still make no sense: a refusal with its reason, never an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nvattest._registry import GpuField, SwitchField
from nvattest.errors import ResultCode

LONGEST = (b"A" * 64).hex()


def test_texts_that_are_together_too_long_for_a_rim_id_are_refused(node: Callable[..., Any]) -> None:
    ids = (GpuField.PROJECT, GpuField.PROJECT_SKU, GpuField.CHIP_SKU)
    bad = node("hopper-1", *(f"gpu0:field={int(field)},{LONGEST}" for field in ids))
    appraisal = bad.appraise()
    assert not appraisal.trusted
    assert appraisal.result_code is ResultCode.RIM_NOT_FOUND
    check = appraisal.devices[0].check("vbios-rim-available")
    assert check is not None
    assert "not a RIM id" in check.detail


@pytest.mark.parametrize("field", GpuField, ids=lambda field: field.name)
@pytest.mark.parametrize("text", [LONGEST, "00"], ids=["longest", "zero"])
def test_a_strange_field_of_a_gpu_raises_nothing(node: Callable[..., Any], field: GpuField, text: str) -> None:
    node("hopper-1", f"gpu0:field={int(field)},{text}").appraise()


@pytest.mark.parametrize("text", [LONGEST, "00"], ids=["longest", "zero"])
def test_a_strange_field_of_a_switch_raises_nothing(node: Callable[..., Any], text: str) -> None:
    fields = list(SwitchField)
    for start in range(0, len(fields), 4):
        lies = [f"switch{place}:field={int(field)},{text}" for place, field in enumerate(fields[start : start + 4])]
        bad = node("hopper-8-ppcie", *lies)
        bad.appraise(evidence=[item for item in bad.evidence if item.kind.value == "nvswitch"])
