"""Custom models that cannot be served: the worker stays up and reports to the author what to change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from handlers.cards.card import CardError, Family, Parameter, load_card, write_card
from handlers.loading.build import BuildError, build_module
from tests.handlers.custom_models import CONDITIONAL, UNCONDITIONAL, custom_card, reason_of, write_custom

CLASS = "import torch\nfrom torch import nn\n\nclass Generator(nn.Module):\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param(
            "import einops_of_mine\n" + UNCONDITIONAL,
            "generator.py imports einops_of_mine, which this worker lacks; install it in the worker's environment, "
            "or remove the import",
            id="a missing package",
        ),
        pytest.param(
            "from einops_of_mine.layers import Rearrange\n",
            "generator.py imports einops_of_mine, which this worker lacks; install it in the worker's environment, "
            "or remove the import",
            id="a part of a missing package",
        ),
        pytest.param(
            "from layers import Block\n",
            "generator.py imports layers from its own folder; a custom model is one file: put it into that",
            id="a file of the folder",
        ),
        pytest.param(
            "from .layers import Block\n",
            "generator.py cannot be imported: ImportError: attempted relative import with no known parent package "
            "(generator.py, line 1); a custom model is one file: put what it imports into it",
            id="a relative import",
        ),
        pytest.param(
            "from pathlib import Path\nSTATISTICS = Path(__file__).with_name('model.yaml').read_text()\n",
            "generator.py cannot be imported: FileNotFoundError: [Errno 2] No such file or directory: 'model.yaml' "
            "(generator.py, line 2); a custom model is one file: put what it reads into it, or into the weights, "
            "as buffers",
            id="data of the folder",
        ),
        pytest.param(
            "from torch import nn\n\nclass Generator(nn.Module:\n",
            "generator.py is not Python: SyntaxError: invalid syntax (generator.py, line 3); correct it",
            id="no Python",
        ),
        pytest.param(
            "import sys\nsys.exit(3)\n",
            "generator.py cannot be imported: SystemExit: 3 (generator.py, line 2); put code for running "
            'the file as a script under if __name__ == "__main__":',
            id="a script that exits",
        ),
        pytest.param(
            "a = 1\nb = a / 0\n",
            "generator.py cannot be imported: ZeroDivisionError: division by zero (generator.py, line 2); correct it",
            id="a fault at import",
        ),
        pytest.param(
            "from torch import nn\nclass Other(nn.Module): pass\nclass More(nn.Linear): pass\n",
            "generator.py has no Generator; set family.class_name to one of: Other, More",
            id="another class",
        ),
        pytest.param(
            "class Generator: pass\n",
            "Generator in generator.py is a class of object and no torch.nn.Module; derive Generator from "
            "torch.nn.Module (modules there: none)",
            id="no module",
        ),
        pytest.param(
            "def Generator(z): return z\n",
            "Generator in generator.py is a function and no class; name a class that is a torch.nn.Module "
            "(modules there: none)",
            id="no class",
        ),
        pytest.param(
            CLASS + "    def __init__(self, depth, width=4):\n        super().__init__()\n",
            "Generator(depth, width=4) in generator.py cannot be built with family.config, which gives height, width, "
            "channels: missing a required argument: 'depth'; make the two match",
            id="other arguments",
        ),
        pytest.param(
            CLASS + "    def __init__(self, height, width, channels):\n        raise ValueError('no such size')\n",
            "Generator cannot be built: ValueError: no such size (generator.py, line 6); correct it, or family.config",
            id="a fault when built",
        ),
        pytest.param(
            CLASS + "    def __init__(self, height, width, channels):\n        self.net = nn.Linear(6, 16)\n",
            "Generator cannot be built: AttributeError: cannot assign module before Module.__init__() call "
            "(generator.py, line 6); correct it, or family.config",
            id="no super",
        ),
    ],
)
def test_an_unusable_source_file_is_reported(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "layers.py").write_text("Block = 1\n")
    write_custom(tmp_path, source, custom_card(classes=0), weights=False)
    assert reason_of(tmp_path) == reason


@pytest.mark.parametrize(
    ("signature", "classes", "reason"),
    [
        pytest.param(
            "z", 3,
            "Generator.sample(z) takes no label, the card has classes; add a second parameter for it, or remove "
            "classes and prior from the card", id="no label",
        ),
        pytest.param(
            "z, label", 0,
            "Generator.sample(z, label) takes label after z, the card has no classes; add classes and prior to the "
            "card, or give the parameter a default", id="a label too many",
        ),
        pytest.param(
            "z, truncation", 0, "Generator.sample(z, truncation) needs truncation, but the z it gets is truncated "
            "already; remove the parameter, or give it a default", id="truncation",
        ),
        pytest.param("*, z", 0, "Generator.sample(*, z) takes no z; make z its first parameter", id="no z"),
        pytest.param(
            "z, *, mood", 0,
            "Generator.sample(z, *, mood) needs mood, which workers do not provide; give it a default, or use "
            "temperature, top_k, top_p, guidance_scale, steps, eta, prior_fit, importance_samples, noise, "
            "check_deadline",
            id="an unknown parameter",
        ),
        pytest.param(
            "z, *, steps", 0,
            "Generator.sample(z, *, steps) needs steps, for which the card has no default; add steps with a default "
            "to the card's parameters, or give it a default in the signature", id="a parameter the card lacks",
        ),
    ],
)  # fmt: skip
def test_a_signature_that_does_not_fit_the_card_is_reported(
    tmp_path: Path, signature: str, classes: int, reason: str
) -> None:
    source = UNCONDITIONAL.replace("forward(self, input)", f"sample(self, {signature})")
    write_custom(tmp_path, source, custom_card(classes=classes))
    assert reason_of(tmp_path) == f"generator.py: {reason}"


def test_a_listed_parameter_the_module_does_not_take_is_reported(tmp_path: Path) -> None:
    steps = Parameter(min=1, max=9, default=2, description="Steps.")
    write_custom(tmp_path, CONDITIONAL, custom_card(parameters={"steps": steps}))
    assert reason_of(tmp_path) == (
        "generator.py: the card lists steps, Generator.sample(z, label) does not take it; "
        "remove it from the card, or take it"
    )


def test_a_module_without_a_method_to_call_is_reported(tmp_path: Path) -> None:
    source = (
        CLASS + "    def __init__(self, **config):\n        super().__init__()\n        self.net = nn.Linear(1, 1)\n"
    )
    write_custom(tmp_path, source, custom_card(classes=0))
    assert reason_of(tmp_path) == "generator.py: Generator has neither sample nor forward; add sample(self, z)"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            "return self.net(input)",
            "the family returned shape (1, 16), expected (1, 1, 4, 4); return one row for each row of z, "
            "or correct the card",
            id="no pictures",
        ),
        pytest.param(
            "return self.net(input).reshape(-1, 1, 4, 4).int()",
            "the family returned torch.int32, expected floats; return floats in value_range",
            id="whole numbers",
        ),
        pytest.param(
            "return self.net(input), input",
            "the model failed when it was first run: TypeError: Generator.forward(input) returned a tuple; return one "
            "tensor (B, C, H, W); correct the model; it must accept z, and the label if it has classes, of any number "
            "of rows",
            id="a tuple",
        ),
        pytest.param(
            "return self.net(input[:, :3])",
            "the model failed when it was first run: RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and "
            "6x16) (generator.py, line 12); correct the model; it must accept z, and the label if it has classes, "
            "of any number of rows",
            id="a fault",
        ),
        pytest.param(
            "return (self.net(input) + torch.rand(())).reshape(-1, 1, 4, 4)",
            "no batch size gives a row the same bytes twice; look for randomness or state in the family",
            id="randomness",
        ),
    ],
)
def test_a_module_that_returns_something_else_is_reported(tmp_path: Path, body: str, reason: str) -> None:
    source = UNCONDITIONAL.replace("return torch.tanh(self.net(input)).unflatten(1, self.shape)", body)
    write_custom(tmp_path, source, custom_card(classes=0))
    assert reason_of(tmp_path) == reason


def test_a_model_larger_than_memory_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_custom(tmp_path, CONDITIONAL, custom_card((1024, 256, 3)))
    monkeypatch.setattr("handlers.loading.memory.available_bytes", lambda: 50 * 2**20)
    assert reason_of(tmp_path) == (
        "weights.safetensors needs 102 MiB of memory to load, 50 MiB are free; use a machine or a limit with more "
        "memory, or fewer workers"
    )


def test_running_out_of_memory_is_not_reported_as_an_error_of_the_file(tmp_path: Path) -> None:
    source = UNCONDITIONAL.replace("self.net = nn", "raise MemoryError\n        self.net = nn")
    write_custom(tmp_path, source, custom_card(classes=0), weights=False)
    with pytest.raises(MemoryError):
        build_module(load_card(tmp_path), tmp_path)


def test_an_absent_source_file_is_reported(tmp_path: Path) -> None:
    write_custom(tmp_path, CONDITIONAL, custom_card())
    (tmp_path / "generator.py").unlink()
    with pytest.raises(BuildError, match=r"generator\.py cannot be read \(No such file or directory\)"):
        build_module(load_card(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param(
            {"family": Family(name="module", class_name="Generator")},
            "family.source: missing; family module needs it: add the Python file", id="no source",
        ),
        pytest.param(
            {"family": Family(name="module", source="generator.py")},
            "family.class_name: missing; family module needs it: add the class in that file", id="no class name",
        ),
        pytest.param(
            {"latent": None},
            "latent: missing; family module needs the shape of z: add, for instance, latent: {shape: [100]}",
            id="no latent",
        ),
        pytest.param(
            {"family": Family(name="exported", config={"depth": 2})},
            "family.config: has depth; a program has no configuration: remove it", id="a program with a configuration",
        ),
        pytest.param(
            {"family": Family(name="torchscript", source="generator.py")},
            "family.source: is 'generator.py'; only family module has one: remove it, or set family.name to module",
            id="a program with a source",
        ),
        pytest.param(
            {"family": Family(name="vae", config={})},
            "latent: is [6]; family vae defines its own latent: remove it", id="a family with a latent",
        ),
        pytest.param(
            {"operations": ("TRANSFORM",), "classes": (), "prior": (), "encodings": ()},
            "operations: is ['TRANSFORM']; a model of family module has no TRANSFORM: remove it",
            id="other operations",
        ),
        pytest.param(
            {"operations": ("SAMPLE", "EMBED"), "family": Family(name="torchscript")},
            "operations: is ['SAMPLE', 'EMBED']; a model of family torchscript can only sample: set it to [SAMPLE]",
            id="other operations of a program",
        ),
        pytest.param(
            {"family": dataclasses.replace(custom_card().family, source="lib/generator.py")},
            "family.source: is 'lib/generator.py'; must be a Python file in the card's folder, like generator.py",
            id="a path for a source",
        ),
        pytest.param(
            {"family": dataclasses.replace(custom_card().family, class_name="the class")},
            "family.class_name: is 'the class'; must be the name of a Python class", id="no name for a class",
        ),
    ],
)  # fmt: skip
def test_a_contradictory_card_is_reported(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    write_card(dataclasses.replace(custom_card(), **changes), tmp_path)
    with pytest.raises(CardError) as caught:
        load_card(tmp_path)
    assert [str(found) for found in caught.value.problems] == [problem]
