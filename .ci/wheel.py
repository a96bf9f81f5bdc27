"""The build hook of the wheel: man pages and completions, written from the parsers, where packagers look for them.

The parsers import the standard library alone, so that an isolated build needs nothing but hatchling.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShareHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds ``nvattest.cli.manual.share`` to the data of the wheel; pip puts it below ``sys.prefix``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files of this build."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from nvattest.cli.manual import share

        self._folder = tempfile.TemporaryDirectory(prefix="nvattest-share-")
        for number, (place, text) in enumerate(share().items()):
            path = os.path.join(self._folder.name, str(number))
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(path, 0o644)
            build_data["shared_data"][path] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove them."""
        if version != "editable":
            self._folder.cleanup()
