"""Make a guest extension image of Kata 4.x from a folder: EROFS, its dm-verity tree, and the five fields on stdout.

    python examples/guest-layer/extension.py FOLDER IMAGE

Needs mkfs.erofs, and neither root nor a loop device. The same folder gives the same image.
"""

from __future__ import annotations

import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from layer_native import LayerError
from layer_pack import write_erofs


def extension_of(folder: str, image: str) -> str | None:
    """Write the image; its five fields, or None where mkfs.erofs is missing."""
    from nvattest.errors import InputError
    from nvattest.guest.extension import write_extension

    with tempfile.TemporaryDirectory(prefix="nvattest-extension-") as scratch:
        file_system = os.path.join(scratch, "data")
        if not write_erofs(folder, file_system):
            return None
        try:
            return str(write_extension(file_system, image))
        except InputError as error:
            raise LayerError(error.message) from None


def main(argv: list[str]) -> int:
    if len(argv) != 2 or not os.path.isdir(argv[0]):
        print("usage: extension.py FOLDER IMAGE", file=sys.stderr)
        return 2
    try:
        fields = extension_of(*argv)
    except LayerError as error:
        print(f"extension.py: {error}", file=sys.stderr)
        return 1
    if fields is None:
        print("extension.py: mkfs.erofs is missing (Debian: erofs-utils)", file=sys.stderr)
        return 1
    print(fields)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
