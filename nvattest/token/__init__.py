"""Tokens: what an appraisal said, signed with ES384; and the strict verification of everyone's tokens.

There is no unsigned token here and none under a shared secret. Nothing here reads a clock, makes a random number or
touches a file: the instant, the source of ids and the key are arguments.
"""

from __future__ import annotations
