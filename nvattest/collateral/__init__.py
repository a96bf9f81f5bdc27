"""Collateral from outside: folders, bundles, the cache, and NVIDIA's services. Bytes only; the core verifies them."""
