"""Run the command `fount` as `python -m fount`; modules of the working folder do not replace those it imports."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from fount.cli.main import main

if __name__ == "__main__":
    main(prog_name="fount")
