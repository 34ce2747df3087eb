"""Plans as people write them, and as a server answers them."""

import pytest

from fount.augmentation.plan import load_wishes, plan_info, plan_message, plan_request, policy_message, ticket_of
from fount.errors import InvalidRequest, NotFound
from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2

PLAN = """
dataset: mnist
split: train
seed: 1
target: {balance: largest, subsample: true}
real: bootstrap
mix: {transformed: 1, synthesised: 2, max_synthetic_ratio: 3}
policy: [{rotate: [0, 15], probability: 0.5}, {shift: [0, 0.07]}, {flip-horizontal: true}]
synthesis: {model: "mnist-cvae:1.0", classifier: judge, min_confidence: 0.5, copy_quantile: 0.01, attempts: 8,
            parameters: {truncation: 2}}
verification: {classifier: judge, min_agreement: 0.9, rows: 256}
shards: 8
time_to_live_hours: 24
"""


def problems(**wishes):
    with pytest.raises(InvalidRequest) as error:
        plan_request({"dataset": "mnist", **wishes})
    return dict(error.value.fields)


def label(name):
    return sampling_pb2.LabelRef(name=name)


def test_it_reads_every_key_of_a_plan_file(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    request = plan_request(load_wishes(tmp_path / "plan.yaml"))
    expected = augmentation_pb2.PlanDatasetRequest(dataset="mnist", split="train", seed=1, shards=8)
    expected.target.balance_to_largest = expected.target.subsample = True
    expected.real.mode = augmentation_pb2.RealRows.MODE_BOOTSTRAP
    expected.mix.CopyFrom(augmentation_pb2.Mix(transformed=1, synthesised=2, max_synthetic_ratio=3))
    kinds = augmentation_pb2.Transform
    expected.policy.transforms.add(kind=kinds.KIND_ROTATE, max=15, probability=0.5)
    expected.policy.transforms.add(kind=kinds.KIND_SHIFT, max=0.07)
    expected.policy.transforms.add(kind=kinds.KIND_FLIP_HORIZONTAL)
    expected.synthesis.CopyFrom(
        augmentation_pb2.Synthesis(
            model=model_pb2.ModelRef(name="mnist-cvae", version="1.0"),
            classifier=model_pb2.ModelRef(name="judge"),
            min_confidence=0.5,
            copy_quantile=0.01,
            attempts=8,
            parameters=sampling_pb2.Parameters(truncation=2),
        )
    )
    expected.verification.CopyFrom(
        augmentation_pb2.Verification(classifier=model_pb2.ModelRef(name="judge"), min_agreement=0.9, rows=256)
    )
    expected.time_to_live.FromSeconds(86400)
    assert request == expected


def test_it_leaves_open_what_a_plan_leaves_out():
    assert plan_request({"dataset": "mnist"}) == augmentation_pb2.PlanDatasetRequest(dataset="mnist")


def test_it_keeps_an_explicit_zero_apart_from_nothing():
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
        "dataste": 'is not known; did you mean "dataset"?',
        "dataset": "is missing",
        "mix.transfomed": 'is not known; did you mean "transformed"?',
        "policy[0].rotat": 'is not known; did you mean "rotate"?',
        "policy[0]": "names no transform; name one of flip-horizontal, flip-vertical, rotate, shear, zoom, shift, "
        "brightness, contrast, noise, erase",
    }


@pytest.mark.parametrize(
    ("wishes", "field", "text"),
    [
        pytest.param({"real": "twice"}, "real", "is 'twice'; it may be once, bootstrap, poisson, none", id="real"),
        pytest.param({"shards": 0}, "shards", "is 0; it is a whole number from 1 to 65536", id="shards"),
        pytest.param({"seed": -1}, "seed", "whole number from 0", id="seed"),
        pytest.param({"mix": {"synthesised": float("nan")}}, "mix.synthesised", "finite", id="nan"),
        pytest.param({"mix": [1]}, "mix", "write a mapping of resampled", id="mix is a list"),
        pytest.param({"target": {}}, "target", "gives none of balance, factor, counts, weights", id="empty target"),
        pytest.param({"target": {"factor": 1, "balance": "8"}}, "target", "gives balance and factor", id="two targets"),
        pytest.param({"target": {"weights": {"8": 1}}}, "target.total", "is missing", id="weights of nothing"),
        pytest.param({"target": {"factor": 1, "total": 9}}, "target.total", "weights alone", id="a stray total"),
        pytest.param({"target": {"counts": {"8": -1}}}, "target.counts.8", "whole number", id="negative count"),
        pytest.param({"target": {"counts": {"8": None}}}, "target.counts.8", "whole number", id="no count"),
        pytest.param({"target": {"counts": [{"count": 1}]}}, "target.counts[0].label", "missing", id="no label"),
        pytest.param({"target": {"factor": 1, "by_group": 1}}, "target.by_group", "true or false", id="flag"),
        pytest.param({"policy": [{"rotate": 15}]}, "policy[0].rotate", "[least, most]", id="no range"),
        pytest.param({"policy": [{"flip-vertical": [0, 1]}]}, "policy[0].flip-vertical", "no range", id="flip range"),
        pytest.param({"policy": {"rotate": [0, 1]}}, "policy", "write a list", id="policy is a mapping"),
        pytest.param({"synthesis": {}}, "synthesis.model", "is missing", id="no model"),
        pytest.param({"synthesis": {"model": 7}}, "synthesis.model", "put it in quotes", id="model is a number"),
        pytest.param({"synthesis": {"model": ":1"}}, "synthesis.model", "has no name", id="nameless model"),
        pytest.param({"time_to_live_hours": 721}, "time_to_live_hours", "up to 720", id="long life"),
    ],
)
def test_it_says_what_is_wrong_with_a_value(wishes, field, text):
    assert text in problems(**wishes)[field]


def test_it_says_when_a_plan_file_is_absent(tmp_path):
    with pytest.raises(NotFound, match="No such file"):
        load_wishes(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [1", "\x00"], ids=["list", "empty", "cut off", "binary"])
def test_it_says_when_a_plan_file_is_no_mapping(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(InvalidRequest, match=r"plan\.yaml"):
        load_wishes(tmp_path / "plan.yaml")


@pytest.mark.parametrize("text", ["dataset: 2024-13-45", "dataset: " + 3000 * "["], ids=["date", "depth"])
def test_it_says_when_a_plan_file_is_no_yaml(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(InvalidRequest, match="not YAML"):
        load_wishes(tmp_path / "plan.yaml")


def test_it_refuses_a_number_larger_than_any_float():
    with pytest.raises(InvalidRequest, match=r"target\.factor: is 1000"):
        plan_request({"dataset": "digits", "target": {"factor": 10**400}})


def test_it_runs_nothing_that_a_plan_file_says(tmp_path):
    (tmp_path / "plan.yaml").write_text("dataset: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InvalidRequest, match="not YAML"):
        load_wishes(tmp_path / "plan.yaml")


def test_it_reads_a_policy_alone_or_under_its_key():
    policy = [{"zoom": [0.9, 1.1]}]
    assert policy_message(policy) == policy_message({"policy": policy})
    assert policy_message(policy).transforms[0].kind == augmentation_pb2.Transform.KIND_ZOOM


def test_it_takes_a_request_as_it_is():
    request = augmentation_pb2.PlanDatasetRequest(dataset="mnist")
    assert plan_message(request) is request


def test_it_refuses_wishes_that_are_neither():
    with pytest.raises(TypeError, match="a mapping or a PlanDatasetRequest, got str"):
        plan_message("plan.yaml")


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
    told = [(each.label, each.group, each.source, each.count) for each in plan.slots]
    assert told == [("b", "north", "transformed", 5), ("a", "", "synthesised", 2)]


def test_it_tells_what_was_not_estimated_from_zero():
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
    told = plan_info(a_plan(agreement=agreement)).agreement
    assert (told.rows, told.before, told.after, told.transforms) == (256, 0.99, 0.97, {"rotate": 0.98})


def test_it_does_not_print_a_ticket():
    assert "ticket" not in repr(plan_info(a_plan()))


@pytest.mark.parametrize(
    "form", [b"t", bytearray(b"t"), a_plan(), plan_info(a_plan())], ids=["bytes", "bytearray", "message", "info"]
)
def test_it_finds_the_ticket_of_a_plan(form):
    assert ticket_of(form) == b"t"


def test_it_refuses_a_plan_without_a_ticket():
    with pytest.raises(InvalidRequest, match="ticket: is empty"):
        ticket_of(b"")


def test_it_refuses_what_is_no_plan():
    with pytest.raises(TypeError, match="got str"):
        ticket_of("plan.yaml")
