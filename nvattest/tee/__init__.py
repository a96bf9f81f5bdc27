"""The CPU's own attestation: quotes through Linux' configfs-tsm, runtime registers, and what a quote is bound to."""
