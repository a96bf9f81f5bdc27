"""The CPU's quote: taken through Linux' configfs-tsm, read, verified and judged with the devices; runtime registers."""
