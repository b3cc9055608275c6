"""`python3 -m lxcpy COMMAND ...`"""

import sys

from lxcpy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
