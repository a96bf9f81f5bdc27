"""Collateral from outside: folders, bundles, cache, NVIDIA's services and those of CPU makers. The core verifies it."""
