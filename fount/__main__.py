"""Run the command `fount` as `python -m fount`."""

from fount.cli.main import main

if __name__ == "__main__":
    main(prog_name="fount")
