"""Policies: what the verifier demands of evidence (from a file), and what a relying party demands of the claims."""
