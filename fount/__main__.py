"""`python -m fount`: the command `fount`, for an interpreter whose scripts are not on the path."""

from fount.cli.main import main

if __name__ == "__main__":
    main(prog_name="fount")
