import fnmatch
import math
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.evaluation.report.figures import FIGURES, figures_of
from service.evaluation.report.formatting import number, percent
from service.evaluation.report.page import render
from service.evaluation.report.views import histogram_view, interval_plot
from service.evaluation.results import ClassValue, GateOutcome, Null, Panel, Verdict
from tests.unit.evaluation.report_values import bundle, evidence, metric, panel, record, specification

ROOT = Path(__file__).resolve().parents[3]
VOID = {"meta", "img", "br", "line", "path", "rect", "circle"}
HOSTILE_NAMES = ("<script>alert(1)</script>", '"] onload="x', "a" * 300, "\u202ebackwards", "plain & simple")


class Page(HTMLParser):
    """Tags with attributes, text; fails on a tag that is not closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page.decode("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f" {data}" if self.open[-1:] != ["style"] else ""

    @property
    def names(self):
        return {tag for tag, _ in self.tags}

    def words(self):
        return re.sub(" (?=[,.])", "", " ".join(self.text.split()))


def page(redacted=False, the_record=None, **changes):
    return render(bundle(**changes), redacted=redacted, record=the_record or record())


def figures(seen):
    return {each.name: each.compute(seen) for each in FIGURES}


ALL_PANELS = [panel(each, Verdict.LIKE_REAL, f"A sentence on {each}.") for each in Panel]


@pytest.fixture(scope="module")
def whole():
    return page(figures=figures(evidence()), panels=ALL_PANELS)


# --- Content -----------------------------------------------------------------------------------------------------


def test_it_begins_with_the_verdict_and_a_sentence_for_each_panel(whole):
    words = Page(whole).words()
    assert words.index("Like real data") < words.index("A sentence on realism.") < words.index("Every gate passed")
    assert words.index("Every gate passed") < words.index("Computed from 60 samples.")


def test_it_shows_a_metric_with_interval_real_rows_and_verdict():
    words = Page(page()).words()
    for text in ("0.712", "0.650 to 0.770", "0.860", "0.840 to 0.880", "Worse than real data", "higher is better"):
        assert text in words
    assert "Share of samples within the held-out rows' manifold" in words
    assert 'title="0.71234567"' in page().decode()


def test_it_shows_metrics_that_decide_first():
    words = Page(page(metrics=[metric(name="another", decides=False), metric(name="decider")])).words()
    assert words.index("Metrics that decide the verdict") < words.index("decider") < words.index("Other metrics")
    assert words.index("Other metrics") < words.index("another")


def test_it_shows_the_outcome_of_each_gate():
    gates = [
        GateOutcome(gate="fid < 1", passed=False, actual=2.5),
        GateOutcome(gate="kid < 1", passed=False, actual=None, note="it could not be computed"),
        GateOutcome(gate="recall > 0", passed=True, actual=0.5),
    ]
    words = Page(page(gates=gates)).words()
    assert "Gates: 1 of 3 passed" in words
    assert "fid < 1 2.50 ✗ Failed" in words
    assert "kid < 1 – it could not be computed ✗ Failed" in words


def test_it_states_that_no_gates_were_set():
    assert "No gates were set." in Page(page(gates=[])).words()


def test_it_shows_every_figure(whole):
    headings = Page(whole).words()
    for text in (
        "Samples a 20 samples",
        "Most realistic samples",
        "Least realistic samples",
        "Closest pairs of samples",
        "Shares of the classes",
        "Distance to the nearest training row",
        "Nearest training rows",
        "Requested label and predicted class",
        "The same noise under every label",
        "A map of the features",
    ):
        assert text in headings


def test_it_shows_the_envelope():
    words = Page(page(failed=3, compared=40)).words()
    for text in (
        "sha256:generator",
        "sha256:classifier",
        "sha256:shapes",
        "numerics cpu-1",
        "Seed 5",
        "truncation = 0.7",
        "Fount 0.1.0",
        "60 requested, 3 failed, 40 compared",
        "train, 1\u202f000 rows".replace("\u202f", " "),
        "2023-11-14 22:14:20 UTC",
    ):
        assert text in words


def test_it_differs_in_the_last_section_alone_for_another_job_of_the_same_specification():
    other = record(id="e2", create_unix_s=5.0, start_unix_s=0.0, end_unix_s=9.0)
    first, second = (page(the_record=each).split(b'<section id="job">') for each in (record(), other))
    assert first[0] == second[0]
    assert first[1] != second[1]


# --- Redaction -----------------------------------------------------------------------------------------------


def test_the_redacted_form_shows_no_training_rows_and_names_the_grant():
    drawn = figures(evidence())
    made = page(redacted=True, figures=drawn, panels=ALL_PANELS)
    words = Page(made).words()
    for pair in drawn["nearest-training-rows"]["pairs"]:
        assert pair["training_tile"]["png"].encode() not in made
    assert "sample left, row right" not in words
    assert "This is the redacted form." in words
    assert "view-training-neighbours" in words


def test_the_whole_form_shows_training_rows(whole):
    assert "sample left, row right" in Page(whole).words()
    assert "redacted" not in Page(whole).words()


# --- Safe and self-contained ------------------------------------------------------------------------------------------


def test_it_loads_nothing_from_outside(whole):
    parsed = Page(whole)
    assert not parsed.names & {"script", "link", "iframe", "object", "form", "base"}
    for _, attributes in parsed.tags:
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(rb"url\(|@import|https?:", whole)


def test_it_forbids_scripts_and_everything_from_outside(whole):
    policy = next(a["content"] for tag, a in Page(whole).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_names_are_escaped():
    seen = evidence(classes=HOSTILE_NAMES)
    classes = tuple(ClassValue(class_name=name, value=0.5) for name in HOSTILE_NAMES)
    hostile = HOSTILE_NAMES[0]
    made = page(
        specification=specification(HOSTILE_NAMES, dataset=hostile, code_version=hostile),
        figures=figures(seen),
        panels=[panel(each, sentence=hostile) for each in Panel],
        metrics=[metric(name=hostile, method=hostile, note=hostile, classes=classes)],
        gates=[GateOutcome(gate=hostile, passed=False, actual=None, note=hostile)],
    )
    parsed = Page(made)
    assert "script" not in parsed.names
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert hostile in parsed.text
    assert HOSTILE_NAMES[1] in parsed.text


def test_a_name_that_is_not_valid_text_is_replaced():
    assert b"?name" in page(specification=specification(("\udc80name",)), metrics=[metric(
        classes=(ClassValue(class_name="\udc80name", value=0.5),))])  # fmt: skip


# --- Unusual evaluations ----------------------------------------------------------------------------------------------


def test_it_renders_a_thousand_classes():
    names = tuple(f"class-{i}" for i in range(1000))
    rows = tuple(
        ClassValue(
            class_name=name, value=i / 1000, null_mean=1.0, verdict=Verdict.WORSE if i == 7 else Verdict.NEAR_REAL
        )
        for i, name in enumerate(names)
    )
    seen = evidence(classes=names, samples=1200, rows=400)
    made = page(specification=specification(names), metrics=[metric(classes=rows)] * 3, panels=ALL_PANELS,
                figures=figures(seen))  # fmt: skip
    words = Page(made).words()
    assert len(made) < 3_000_000
    assert "The worst 100 of 1 000 classes" in words
    assert "By class Class Value 95 % interval Real rows Verdict class-7 0.00700" in words
    assert "The first 50 of 1 000 classes are shown." in words
    assert "The 40 of 1 000 classes that differ most." in words


def test_it_renders_one_class_and_no_labels():
    panels = [Panel.REALISM, Panel.DIVERSITY, Panel.MEMORISATION]
    seen = evidence(classes=("all",), conditional=False)
    drawn = {each.name: each.compute(seen) for each in figures_of(panels)}
    made = page(specification=specification(("all",), model_labels=()), figures=drawn, panels=ALL_PANELS[:3])
    words = Page(made).words()
    assert "by the class that the classifier predicts" in words
    assert "the generator is unconditional" in words


def test_it_renders_metrics_without_numbers_and_a_report_without_figures():
    empty = metric(value=None, interval=None, null=None, verdict=Verdict.NONE, note="Too few.", classes=())
    words = Page(page(metrics=[empty], panels=ALL_PANELS, figures={}, gates=[])).words()
    assert "Too few." in words
    assert "No verdict" in words
    assert "There are no metrics." in words


def test_it_renders_figures_without_data():
    drawn = {
        "best-and-worst": {"best": [], "worst": [], "note": "all rows are identical"},
        "closest-pairs": {"pairs": [], "samples": 1, "held_out_rows": 1, "held_out_distance": None},
        "distances": {"spaces": {"pixels": None}},
        "nearest-training-rows": {"pairs": []},
        "confusion": {"counts": None, "asked": [], "confusions": []},
        "same-noise": {"rows": 0, "classes": [], "classes_left_out": 0, "predicted": [], "sheet": None},
        "samples-by-class": {"by": "read", "rows": [], "classes_left_out": 0},
        "class-histogram": {"generated": [0, 0, 0], "real": [0, 0, 0], "real_labels": [0, 0, 0]},
    }
    words = Page(page(figures=drawn, panels=ALL_PANELS)).words()
    assert "They cannot be ranked: all rows are identical." in words
    assert "There are no pairs." in words
    assert "There are no distances." in words


def test_it_renders_open_intervals():
    words = Page(page(metrics=[metric(value=math.inf, interval=(120.0, math.inf))])).words()
    assert "120 to ∞" in words


# --- Parts ------------------------------------------------------------------------------------------------------------


def test_a_histogram_of_many_classes_shows_those_that_differ_most():
    counts = {"generated": [5] * 45, "real": [5] * 43 + [1, 9]}
    names = [row["name"] for row in histogram_view(counts, [f"c{i}" for i in range(45)])["rows"]]
    assert (names[:3], len(names)) == (["c43", "c44", "c0"], 40)


def test_it_shows_titles_of_metrics():
    words = Page(page(metrics=[metric(name="fid"), metric(name="label_response")])).words()
    assert "Fréchet distance (FID) fid" in words
    assert "Label response label_response" in words


def test_it_ends_notes_with_a_full_stop():
    words = Page(page(metrics=[metric(note="It may be below 0")])).words()
    assert "It may be below 0." in words


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0\u202f%"), (0.1234, "12.3\u202f%"), (1.0, "100.0\u202f%"), (0.00123, "0.12\u202f%")],
)
def test_shares_are_formatted_in_per_cent(share, shown):
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.0, "1"),
        (-5, "−5"),
        (0.71234, "0.712"),
        (0.997, "0.997"),
        (12.345, "12.3"),
        (153.4, "153"),
        (999.7, "1\u202f000"),
        (12345.6, "12\u202f346"),
        (-0.00123, "−0.00123"),
        (0.0000321, "3.21×10⁻⁵"),
        (1.5e9, "1.50×10⁹"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_have_three_significant_digits(value, shown):
    assert number(value) == shown


def test_a_plot_has_one_scale():
    plot = interval_plot(metric(value=5.0, interval=(0.0, 10.0), null=None).to_json())
    assert plot["bar"] == {"x": 8.0, "width": 184.0}
    assert plot["point"] == 100.0
    assert plot["band"] is None


def test_a_plot_of_equal_numbers_is_centred():
    null = Null(mean=2.0, range=(2.0, 2.0), draws=1, rows=9)
    plot = interval_plot(metric(value=2.0, interval=(2.0, 2.0), null=null).to_json())
    assert (plot["point"], plot["mean"]) == (100.0, 100.0)
    assert plot["bar"] == {"x": 99.0, "width": 2.0}


def test_a_plot_of_an_open_interval_reaches_the_edge():
    plot = interval_plot(
        metric(value=None, interval=(1.0, None), null=Null(mean=2.0, range=(1.0, 3.0), draws=0, rows=9)).to_json()
    )
    assert plot["bar"]["x"] + plot["bar"]["width"] == 200.0
    assert plot["point"] is None


def test_the_templates_are_shipped():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = rules["*"] + rules.get("service.evaluation.report", [])
    folder = ROOT / "service" / "evaluation" / "report"
    others = [each.name for each in folder.iterdir() if each.is_file() and each.suffix != ".py"]
    assert "page.html.j2" in others
    assert [name for name in others if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []
