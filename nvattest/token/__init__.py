"""Tokens: the claims of an appraisal, signed with ES384; and the strict verification of tokens of any issuer.

No token is unsigned or under a shared secret. Nothing here reads a clock, makes a random number or touches a file: the
instant, the source of ids and the key are arguments.
"""
