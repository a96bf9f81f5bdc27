"""Results for people: the story of an appraisal on a terminal and on a page, and one entry for every code and check."""

from __future__ import annotations

from nvattest.report.render_text import explain_appraisal_json

__all__ = ["explain_appraisal_json"]
