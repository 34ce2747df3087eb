"""The commands that `fount serve` suggests."""

import shlex

from service.cli.serve import _print_examples
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import serving


async def test_the_class_of_the_suggested_command_is_one_word_of_a_shell(capsys):
    label = "a b; $(touch x) 'q'"
    pool = MemoryPool()
    pool.models[0] = memory_model("toy", labels=("a", label))
    async with serving(pool) as running:
        _print_examples(running.gateway)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "fount sample" in line]
    assert shlex.split(line)[:5] == ["fount", "sample", "toy", "--label", label]
