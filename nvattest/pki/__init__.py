"""Public-key infrastructure without IO: certificates, chains, pinned anchors, DICE, ECDSA P-384 and OCSP."""
