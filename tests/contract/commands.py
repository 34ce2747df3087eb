"""The command `fount` as tests run it: in this process, or interrupted in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from click.testing import CliRunner

from fount.cli.main import main

FOUNT = [sys.executable, "-c", "from fount.cli.main import main; main(prog_name='fount')"]


def fount(*arguments, **options):
    return CliRunner().invoke(main, arguments, **options)


def interrupted(*arguments, when):
    """Press Ctrl-C on a command once a condition holds; return its exit code and stderr."""
    # As in a terminal, even if the tests themselves were started with SIGINT ignored.
    python, flag, code = FOUNT
    command = [python, flag, f"import signal; signal.signal(2, signal.default_int_handler); {code}"]
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True) as running:
        try:
            while not when() and running.poll() is None:
                time.sleep(0.001)
            running.send_signal(signal.SIGINT)
            return running.wait(10), running.stderr.read()
        finally:
            running.kill()
