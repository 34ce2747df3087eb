"""Plan specifications as requests, and plans as the client returns them."""

import os

import pytest
from google.protobuf import text_format

from fount.augmentation.plan import SOURCES, plan_info, ticket_of
from fount.augmentation.plan_file import ParametersSpec, load_plan_file, plan_request, policy_message
from fount.errors import InvalidRequest, NotFound
from fount.v1 import augmentation_pb2, latent_pb2, model_pb2, sampling_pb2

PLAN = """
dataset: mnist
split: train
seed: 1
target: {balance: largest, subsample: true}
real: bootstrap
mix: {transformed: 1, synthesised: 2, translated: 3, reconstructed: 4, max_synthetic_ratio: 3}
policy: [{rotate: [0, 15], probability: 0.5}, {shift: [0, 0.07]}, {flip-horizontal: true}]
synthesis: {model: "mnist-cvae:1.0", classifier: mnist-classifier, min_confidence: 0.5, copy_quantile: 0.01,
            attempts: 8, parameters: {truncation: 2}}
translation: {model: "sketches:2", label: to-photo, classifier: mnist-classifier, min_confidence: 0.6, attempts: 3,
              parameters: {steps: 10}}
reconstruction: {model: mnist-vae, latents: mean, classifier: mnist-classifier, min_confidence: 0, attempts: 2}
verification: {classifier: mnist-classifier, min_agreement: 0.9, rows: 256}
shards: 8
time_to_live_hours: 24
"""
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 8))


def problems(**fields):
    with pytest.raises(InvalidRequest) as error:
        plan_request({"dataset": "mnist", **fields})
    return dict(error.value.fields)


def label(name):
    return sampling_pb2.LabelRef(name=name)


def test_it_reads_plan_files_of_more_than_a_megabyte(tmp_path):
    (tmp_path / "plan.yaml").write_text("dataset: mnist\n" + "#" * 2**20)
    assert load_plan_file(tmp_path / "plan.yaml").dataset == "mnist"


@pytest.mark.parametrize(
    "target",
    [
        {"balance": "cafe\u0301"},
        {"counts": {"cafe\u0301": 1}},
        {"counts": [{"label": "b", "group": "cafe\u0301", "count": 1}]},
        {"weights": {"cafe\u0301": 1.0}, "total": 1},
    ],
)
def test_it_composes_names(target):
    request = plan_request({"dataset": "drinks", "target": target})
    assert "caf\u00e9" in text_format.MessageToString(request.target, as_utf8=True)


def test_it_reads_every_key_of_a_plan_file(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    request = plan_request(load_plan_file(tmp_path / "plan.yaml"))
    expected = augmentation_pb2.PlanDatasetRequest(dataset="mnist", split="train", seed=1, shards=8)
    expected.target.balance_to_largest = expected.target.subsample = True
    expected.real.mode = augmentation_pb2.RealRows.MODE_BOOTSTRAP
    expected.mix.CopyFrom(
        augmentation_pb2.Mix(transformed=1, synthesised=2, translated=3, reconstructed=4, max_synthetic_ratio=3)
    )
    kinds = augmentation_pb2.Transform
    expected.policy.transforms.add(kind=kinds.KIND_ROTATE, max=15, probability=0.5)
    expected.policy.transforms.add(kind=kinds.KIND_SHIFT, max=0.07, probability=1)
    expected.policy.transforms.add(kind=kinds.KIND_FLIP_HORIZONTAL, probability=1)
    expected.synthesis.CopyFrom(
        augmentation_pb2.Synthesis(
            model=model_pb2.ModelRef(name="mnist-cvae", version="1.0"),
            classifier=model_pb2.ModelRef(name="mnist-classifier"),
            min_confidence=0.5,
            copy_quantile=0.01,
            attempts=8,
            parameters=sampling_pb2.Parameters(truncation=2),
        )
    )
    expected.translation.CopyFrom(
        augmentation_pb2.Translation(
            model=model_pb2.ModelRef(name="sketches", version="2"),
            label=label("to-photo"),
            classifier=model_pb2.ModelRef(name="mnist-classifier"),
            min_confidence=0.6,
            attempts=3,
            parameters=sampling_pb2.Parameters(steps=10),
        )
    )
    expected.reconstruction.CopyFrom(
        augmentation_pb2.Reconstruction(
            model=model_pb2.ModelRef(name="mnist-vae"),
            latents=latent_pb2.LATENTS_MEAN,
            classifier=model_pb2.ModelRef(name="mnist-classifier"),
            min_confidence=0.0,
            attempts=2,
        )
    )
    expected.verification.CopyFrom(
        augmentation_pb2.Verification(
            classifier=model_pb2.ModelRef(name="mnist-classifier"), min_agreement=0.9, rows=256
        )
    )
    expected.time_to_live.FromSeconds(86400)
    assert request == expected


def test_it_leaves_unset_what_a_plan_leaves_out():
    assert plan_request({"dataset": "mnist"}) == augmentation_pb2.PlanDatasetRequest(dataset="mnist")


def test_it_distinguishes_zero_from_unset():
    request = plan_request({"dataset": "mnist", "seed": 0, "synthesis": {"model": "m", "copy_quantile": 0}})
    assert request.HasField("seed")
    assert request.synthesis.HasField("copy_quantile")
    assert not request.synthesis.HasField("min_confidence")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param({"balance": "8"}, {"balance_to_class": label("8")}, id="balance to a class"),
        pytest.param({"balance": 8}, {"balance_to_class": label("8")}, id="a class that looks like a number"),
        pytest.param({"factor": 2, "by_group": True}, {"factor": 2.0, "by_group": True}, id="factor"),
        pytest.param(
            {"counts": {"8": 6000}},
            {"counts": {"counts": [{"label": label("8"), "count": 6000}]}},
            id="counts by class",
        ),
        pytest.param(
            {"counts": [{"label": "8", "group": "a", "count": 10}]},
            {"counts": {"counts": [{"label": label("8"), "group": "a", "count": 10}]}},
            id="counts by class and group",
        ),
        pytest.param(
            {"total": 1000, "weights": {"8": 2}},
            {"weights": {"total": 1000, "weights": [{"label": label("8"), "weight": 2}]}},
            id="weights",
        ),
    ],
)
def test_it_reads_targets(target, expected):
    assert plan_request({"dataset": "mnist", "target": target}).target == augmentation_pb2.Target(**expected)


def test_it_names_every_wrong_key_with_the_nearest_known_one():
    with pytest.raises(InvalidRequest) as error:
        plan_request({"dataste": "mnist", "mix": {"transfomed": 1}, "policy": [{"rotat": [0, 1]}]})
    assert dict(error.value.fields) == {
        "dataste": "unknown key; did you mean 'dataset'?",
        "mix.transfomed": "unknown key; did you mean 'transformed'?",
        "policy[0].rotat": "unknown key; did you mean 'rotate'?",
    }


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        pytest.param({"real": "twice"}, "real", "is 'twice'; must be one of once, bootstrap, poisson, none", id="real"),
        pytest.param({"shards": 0}, "shards", "is 0; must be a whole number from 1 to 65536", id="shards"),
        pytest.param({"seed": -1}, "seed", "whole number from 0", id="seed"),
        pytest.param({"mix": {"synthesised": float("nan")}}, "mix.synthesised", "finite", id="nan"),
        pytest.param({"mix": [1]}, "mix", "must be a mapping", id="mix is a list"),
        pytest.param({"target": {}}, "target", "gives none of balance, factor, counts, weights", id="empty target"),
        pytest.param({"target": {"factor": 1, "balance": "8"}}, "target", "gives balance and factor", id="two targets"),
        pytest.param(
            {"target": {"weights": {"8": 1}}}, "target.total", "is missing; give the number", id="weights of nothing"
        ),
        pytest.param({"target": {"factor": 1, "total": 9}}, "target.total", "weights alone", id="a stray total"),
        pytest.param({"target": {"counts": {"8": -1}}}, "target.counts.8", "whole number", id="negative count"),
        pytest.param({"target": {"counts": {"8": None}}}, "target.counts.8", "whole number", id="no count"),
        pytest.param(
            {"target": {"counts": [{"count": 1}]}}, "target.counts[0].label", "missing; add this key", id="no label"
        ),
        pytest.param({"target": {"factor": 1, "by_group": 1}}, "target.by_group", "true or false", id="flag"),
        pytest.param({"policy": [{"rotate": 15}]}, "policy[0].rotate", "must be a range, [min, max]", id="no range"),
        pytest.param(
            {"policy": [{"flip-vertical": [0, 1]}]}, "policy[0].flip-vertical", "has no range", id="flip range"
        ),
        pytest.param({"policy": {"rotate": [0, 1]}}, "policy", "must be a list", id="policy is a mapping"),
        pytest.param({"synthesis": {}}, "synthesis.model", "missing", id="no model"),
        pytest.param({"translation": {}}, "translation.model", "missing", id="no translator"),
        pytest.param({"translation": {"model": "m", "attempts": 65}}, "translation.attempts", "1 to 64", id="attempts"),
        pytest.param(
            {"reconstruction": {"model": "m", "latents": "median"}},
            "reconstruction.latents",
            "must be one of sampled, mean",
            id="latents",
        ),
        pytest.param({"policy": [{"rotate": [0, 181]}]}, "policy[0].rotate", "give 0 to 180", id="policy range"),
        pytest.param({"synthesis": {"model": 7}}, "synthesis.model", "put it in quotes", id="model is a number"),
        pytest.param({"synthesis": {"model": ":1"}}, "synthesis.model", "has no name", id="nameless model"),
        pytest.param({"time_to_live_hours": 721}, "time_to_live_hours", "up to 720", id="long life"),
    ],
)
def test_it_names_what_is_wrong_with_a_value(fields, field, text):
    assert text in problems(**fields)[field]


def test_it_reads_a_plan_from_a_pipe_where_that_is_allowed():
    reading, writing = os.pipe()
    try:
        os.write(writing, b"dataset: mnist\n")
        with pytest.raises(NotFound, match="it is not a regular file"):
            load_plan_file(f"/dev/fd/{reading}")
        os.close(writing)
        assert load_plan_file(f"/dev/fd/{reading}", pipes=True).dataset == "mnist"
    finally:
        os.close(reading)


def test_it_reports_a_plan_file_that_does_not_exist(tmp_path):
    with pytest.raises(NotFound, match="No such file"):
        load_plan_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [1", "\x00"], ids=["list", "empty", "cut off", "binary"])
def test_it_reports_a_plan_file_that_holds_no_mapping(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(InvalidRequest, match=r"plan\.yaml"):
        load_plan_file(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("dataset: {a: 1\n", "is not YAML at line .* that begins on line 1", id="broken"),
        pytest.param("dataset: " + 3000 * "[", "is nested more than 64 deep on line 1", id="depth"),
        pytest.param(BOMB, r"has a YAML anchor \(&\) on line 1", id="aliases"),
        pytest.param("dataset: !!python/object/apply:os.getcwd []\n", r"has a YAML tag \(!\) on line 1", id="code"),
        pytest.param("a: 1\ndataset: b\na: 2\n", "a: occurs on lines 1 and 3; keep one of them", id="twice"),
    ],
)
def test_it_reports_a_plan_file_that_it_does_not_read(tmp_path, text, message):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        load_plan_file(tmp_path / "plan.yaml")


def test_it_refuses_a_number_larger_than_any_float():
    with pytest.raises(InvalidRequest, match=r"target\.factor: is larger than any float"):
        plan_request({"dataset": "digits", "target": {"factor": 10**400}})


def test_it_takes_every_sampling_parameter_of_the_contract():
    assert list(vars(ParametersSpec())) == list(sampling_pb2.Parameters.DESCRIPTOR.fields_by_name)


NAMES = ["8", "010", "00014", "1.10", "1e3", "0x10", "0o7", "1_0", "no", "True", "1:30", "2024-01-01", "+8", ".5"]


def read_target(folder, text):
    (folder / "plan.yaml").write_text(f"dataset: mnist\ntarget: {text}\n")
    return plan_request(load_plan_file(folder / "plan.yaml")).target


@pytest.mark.parametrize("name", [*NAMES, "null", "~"])
def test_it_reads_the_name_of_a_class_among_keys_as_written(tmp_path, name):
    counts = read_target(tmp_path, f"{{counts: {{{name}: 6}}}}").counts.counts
    weights = read_target(tmp_path, f"{{total: 9, weights: {{{name}: 6}}}}").weights.weights
    assert [(each.label.name, each.count) for each in counts] == [(name, 6)]
    assert [(each.label.name, each.weight) for each in weights] == [(name, 6)]


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_the_name_of_a_class_among_values_as_written(tmp_path, name):
    counts = read_target(tmp_path, f"{{counts: [{{label: {name}, group: {name}, count: 6}}]}}").counts.counts
    assert [(each.label.name, each.group, each.count) for each in counts] == [(name, name, 6)]
    assert read_target(tmp_path, f"{{balance: {name}}}").balance_to_class.name == name


def test_it_names_a_wrong_key_of_a_count():
    fields = problems(target={"counts": [{"label": "8", "count": 1, "grp": "a"}]})
    assert fields == {"target.counts[0].grp": "unknown key; did you mean 'group'?"}


def test_it_reads_a_policy_alone_or_under_its_key():
    policy = [{"zoom": [0.9, 1.1]}]
    assert policy_message(policy) == policy_message({"policy": policy})
    assert policy_message(policy).transforms[0].kind == augmentation_pb2.Transform.KIND_ZOOM


def test_it_accepts_a_request_as_it_is():
    request = augmentation_pb2.PlanDatasetRequest(dataset="mnist")
    assert plan_request(request) is request


def test_it_refuses_a_specification_of_another_type():
    with pytest.raises(TypeError, match="a mapping, a PlanSpec or a PlanDatasetRequest, got str"):
        plan_request("plan.yaml")


def a_plan(**fields):
    return augmentation_pb2.Plan(
        id="p1", ticket=b"t", classes=["a", "b"], groups=["north"], rows=7, class_weights=[0.5, 2], **fields
    )


def test_it_reads_slots_by_name():
    plan = plan_info(
        a_plan(
            slots=[{"label": 1, "group": 0, "source": 3, "count": 5}, {"label": 0, "group": 1, "source": 4, "count": 2}]
        )
    )
    slots = [(each.label, each.group, each.source, each.count) for each in plan.slots]
    assert slots == [("b", "north", "transformed", 5), ("a", "", "synthesised", 2)]


def test_it_distinguishes_an_estimate_of_zero_from_none():
    plan = plan_info(a_plan(expected_rejected=0.0))
    assert (plan.expected_rejected, plan.expected_attempts, plan.copy_threshold, plan.agreement) == (
        0.0,
        None,
        None,
        None,
    )


def test_it_reads_what_verification_measured():
    agreement = augmentation_pb2.LabelAgreement(rows=256, before=0.99, after=0.97)
    agreement.transforms.add(kind=augmentation_pb2.Transform.KIND_ROTATE, after=0.98)
    read = plan_info(a_plan(agreement=agreement)).agreement
    assert (read.rows, read.before, read.after, read.transforms) == (256, 0.99, 0.97, {"rotate": 0.98})


def test_it_does_not_print_a_ticket():
    assert "ticket" not in repr(plan_info(a_plan()))


@pytest.mark.parametrize(
    "form", [b"t", bytearray(b"t"), a_plan(), plan_info(a_plan())], ids=["bytes", "bytearray", "message", "info"]
)
def test_it_returns_the_ticket_of_a_plan(form):
    assert ticket_of(form) == b"t"


def test_it_knows_every_source_of_the_contract():
    names = {
        each.number: each.name.removeprefix("SOURCE_").lower() for each in augmentation_pb2.Source.DESCRIPTOR.values
    }
    assert names == {0: "unspecified", **SOURCES}


def test_it_reads_the_index_of_a_label_as_its_name():
    spec = {"dataset": "mnist", "translation": {"model": "m", "label": 3}}
    assert plan_request(spec).translation.label == label("3")


def test_it_refuses_a_plan_without_a_ticket():
    with pytest.raises(InvalidRequest, match="ticket: is empty"):
        ticket_of(b"")


def test_it_refuses_a_plan_of_another_type():
    with pytest.raises(TypeError, match="got str"):
        ticket_of("plan.yaml")
