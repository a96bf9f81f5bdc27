"""``python -m nvattest``."""

import sys

from nvattest.cli import main

if __name__ == "__main__":
    sys.exit(main())
