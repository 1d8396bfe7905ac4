"""Reports: what the tables say, JSON both ways, one page that needs nothing else."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from polyact.errors import PolyactError
from polyact.evaluation.off_policy.estimators import Diagnostics, OffPolicyEstimate
from polyact.evaluation.report import plots
from polyact.evaluation.report import scores as report_scores
from polyact.evaluation.report.report import Distributions, Effect, Forest, Group, Lines, Picture, Report, Section, Table, cell_text
from polyact.evaluation.statistics.curves import curve
from polyact.evaluation.statistics.estimate import Estimate, estimate
from polyact.evaluation.statistics.success import success_rate

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><script>alert(1)</script></svg>'
RNG = np.random.default_rng(0)
STATES = RNG.normal(0, 50, (1, 16))
SCORES = {name: STATES + shift + RNG.normal(0, 5, (4, 16)) for name, shift in {"BC": -300, "IQL": -200, "<TD3> & BC": -199}.items()}


@pytest.fixture(scope="module")
def report():
    successes = {name: table > -250 for name, table in SCORES.items()}
    made = report_scores.score_report(SCORES, title="Pendulum & co", successes=successes, distinct=12)
    bands = [curve(name, [0, 1000, 2000], table[:, :3]) for name, table in SCORES.items()]
    result = OffPolicyEstimate(
        estimate(RNG.normal(size=30), units=("episodes", "")), Diagnostics(12.5, 0.2, 1.0), ("odd",), np.ones(3)
    )
    return (
        made.with_facts(environment="Pendulum", seed=3)
        .with_section(report_scores.curve_section("Learning", bands, x_label="steps", y_label="mean return"))
        .with_section(report_scores.off_policy_section({"doubly robust": result}))
        .with_section(Section("Pictures", "One.\n\nTwo.", pictures=(Picture("map", SVG, "a caption"), Picture("photo", PNG))))
    )


def text_of(report, width=220):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report)
    return console.export_text()


def test_scores_and_differences_are_the_statistics(report):
    table, success = report.section("Scores").tables
    assert table.columns == ("policy", "mean return", "median", "worst", "best")
    assert success.rows[1][1].value == pytest.approx((SCORES["IQL"] > -250).mean())
    assert table.rows[0][1] == estimate(SCORES["BC"])
    (compared,) = report.section("Differences").tables
    assert [row[0] for row in compared.rows] == ["IQL minus BC", "<TD3> & BC minus BC"]
    assert compared.rows[0][1].value == pytest.approx((SCORES["IQL"] - SCORES["BC"]).mean())
    assert compared.rows[0][1].sample == "4 paired runs × 16 initial states"


def test_differences_in_success_are_paired_too(report):
    (table,) = report.section("Differences in success").tables
    expected = (SCORES["IQL"] > -250).mean() - (SCORES["BC"] > -250).mean()
    assert table.rows[0][1].value == pytest.approx(expected)
    assert table.rows[0][1].sample == "4 paired runs × 16 initial states"


def test_what_the_numbers_rest_on_is_said(report):
    notes = " ".join(report.section("Scores").notes)
    assert "the same 16 initial states" in notes
    assert "12 of them are distinct" in notes
    assert "last checkpoint" in notes


def test_one_run_resamples_episodes_and_gives_a_posterior_of_success():
    scores = {"A": RNG.normal(size=20), "B": RNG.normal(size=(1, 20))}
    made = report_scores.score_report(scores, successes={name: np.ravel(x) > 0 for name, x in scores.items()})
    table, success = made.section("Scores").tables
    assert table.rows[0][1].sample == "20 initial states"
    assert success.rows[0][1] == success_rate(int((scores["A"] > 0).sum()), 20, unit="initial states")
    assert "One run of A, B" in " ".join(made.section("Scores").notes)


def test_one_policy_has_no_differences():
    made = report_scores.score_report({"A": RNG.normal(size=(5, 8))})
    assert [section.title for section in made.sections] == ["Scores"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": {}}, "at least one"),
        ({"scores": {"A": np.ones((2, 3)), "B": np.ones((2, 4))}}, "'A': 3, 'B': 4"),
        ({"scores": {"A": np.ones((2, 3))}, "successes": {}}, "nobody"),
        ({"scores": {"A": np.ones((2, 3))}, "successes": {"A": np.ones((2, 4))}}, "successes of 'A'"),
        ({"scores": {"A": np.ones((2, 3))}, "successes": {"A": np.full((2, 3), 0.5)}}, "true or false"),
        ({"scores": {"A": np.ones((2, 3)), "B": np.ones((2, 3))}, "reference": "C"}, "unknown reference 'C'"),
        ({"scores": {"A": [[1.0, np.nan]]}}, "scores of 'A' hold 1 values that are not finite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(PolyactError, match=message) as caught:
        report_scores.score_report(arguments.pop("scores"), **arguments)
    assert "\n" not in str(caught.value)


def test_terminal_shows_every_interval_with_its_axis(report):
    text = text_of(report)
    for row in report.section("Scores").tables[0].rows:
        assert row[1].interval_text in text
    assert "95%, 4 paired runs × 16 initial states" in text
    assert "<TD3> & BC minus BC" in text
    assert "Drawn in the HTML report: map, photo" in text


def test_terminal_of_80_columns_keeps_intervals_whole(report):
    text = text_of(report, width=80)
    for table in report.section("Scores").tables:
        assert all(f"{row[1].text} {row[1].interval_text}" in text for row in table.rows)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_json_gives_the_same_report_back(report):
    text = report.to_json()
    json.loads(text, parse_constant=pytest.fail)
    assert Report.from_json(text) == report


NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=8)
ESTIMATES = st.builds(Estimate, NUMBER, NUMBER, NUMBER, NUMBER, st.integers(0, 99), TEXT, TEXT, TEXT, TEXT)
CELLS = st.none() | st.booleans() | st.integers() | NUMBER | TEXT | ESTIMATES
TABLES = st.integers(1, 3).flatmap(
    lambda n: st.builds(Table, TEXT, st.tuples(*[TEXT] * n), st.lists(st.tuples(*[CELLS] * n), max_size=3).map(tuple), TEXT)
)
PLOTS = st.builds(
    Forest, TEXT, TEXT, st.lists(st.builds(Effect, TEXT, ESTIMATES), max_size=2).map(tuple), st.none() | NUMBER
) | st.builds(
    Distributions,
    TEXT,
    TEXT,
    st.lists(st.builds(Group, TEXT, st.lists(NUMBER).map(tuple), st.none() | ESTIMATES), max_size=2).map(tuple),
)
PICTURES = st.builds(Picture, TEXT, st.just(SVG) | st.just(PNG), TEXT)


@pytest.mark.filterwarnings("ignore:Do not use the")
@settings(max_examples=40, deadline=None)
@given(st.builds(Section, TEXT, TEXT, st.tuples(TABLES), st.tuples(PLOTS), st.tuples(PICTURES), st.tuples(TEXT)))
def test_any_report_survives_json(section):
    made = Report("title", sections=(section,), facts=(("a", "b"),))
    assert Report.from_json(made.to_json()) == made


def test_what_is_not_known_is_null_and_comes_back_as_nan():
    made = Report(
        "t", sections=(Section("s", tables=(Table("", ("a",), ((Estimate(1.0, float("nan"), 2.0, 0.95, 3, "", ""),),)),)),)
    )
    assert '"low": null' in made.to_json()
    cell = Report.from_json(made.to_json()).sections[0].tables[0].rows[0][0]
    assert np.isnan(cell.low)
    assert cell.interval_text == "[–, 2.00]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("polyact_report"), "not a report of version 1"),
        (lambda v: v.pop("title"), "report: field 'title' is missing"),
        (lambda v: v.update(more=1), "unknown field 'more'"),
        (lambda v: v.update(title=3), "report.title: expected str, got 3"),
        (lambda v: v.update(sections={}), "report.sections: expected a list"),
        (lambda v: v["sections"][0].update(type="Report"), r"report.sections\[0\]: expected an object of type Section"),
        (lambda v: v["sections"][0]["plots"][0].update(type="os.system"), r"plots\[0\]: expected Distributions or Lines or Forest"),
        (lambda v: v["sections"][0]["tables"][0]["rows"][0].pop(), "row 0 has"),
        (lambda v: v["sections"][-1]["pictures"][1]["image"].update(base64="?"), "base64"),
        (lambda v: v["facts"].append(["only a name"]), r"facts\[2\]: expected 2 entries"),
    ],
)
def test_damaged_json_is_one_line(report, change, message):
    value = json.loads(report.to_json())
    change(value)
    with pytest.raises(PolyactError, match=message) as caught:
        Report.from_json(json.dumps(value))
    assert "\n" not in str(caught.value)


def test_text_that_is_no_json_is_one_line():
    for text in ("{", "[]", ""):
        with pytest.raises(PolyactError, match="not a report"):
            Report.from_json(text)


class Page(HTMLParser):
    """Collects tags, checks that they nest, and everything that could fetch or run."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "action", "data") or name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(report, tmp_path_factory):
    path = report.to_html(tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text("utf-8")


def test_page_is_well_formed_and_self_contained(html):
    page = Page()
    page.feed(html)
    assert page.open == []
    assert "script" not in page.tags
    assert all(source.startswith(("data:image/", "#s")) for source in page.sources)
    assert not re.search(r"url\(|@import|http(?!://www\.w3\.org/2000/svg|-equiv)", html)
    assert "default-src 'none'" in html


def test_page_fits_a_phone_and_both_themes(html):
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in html
    assert "prefers-color-scheme: dark" in html
    assert html.count("<table>") == html.count('<div class="scroll" tabindex="0"><table>')
    assert html.count('class="wide"') == html.count('class="narrow"') > 3


def test_page_escapes_names_and_keeps_pictures_as_images(html):
    assert "<TD3>" not in html
    assert "&lt;TD3&gt; &amp; BC" in html
    assert "alert(1)" not in html
    assert html.count("<img ") == 2
    assert "<p>One.</p><p>Two.</p>" in html


def test_a_page_replaces_an_older_one(report, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    report.to_html(path)
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(PolyactError, match="can't write"):
        report.to_html(tmp_path / "missing" / "report.html")


def numbers(svg, attribute):
    return [float(v) for v in re.findall(rf'\b{attribute}="(-?[\d.]+)"', svg)]


@pytest.mark.parametrize("width", [330, 720])
def test_plots_are_xml_and_stay_inside_their_width(report, width):
    drawn = [plot for section in report.sections for plot in section.plots]
    assert {type(plot) for plot in drawn} == {Distributions, Forest, Lines}
    for plot in drawn:
        svg = plots.draw(plot, width)
        root = ElementTree.fromstring(svg)
        assert root.get("width") == str(width)
        height = float(root.get("height"))
        for name, most in (("x1", width), ("x2", width), ("cx", width), ("y1", height), ("y2", height), ("cy", height)):
            assert all(0 <= v <= most for v in numbers(svg, name)), (plot.title, name)


def test_an_interval_is_drawn_where_its_numbers_are():
    made = Forest("f", "x", (Effect("one", Estimate(2.0, 1.0, 4.0, 0.95, 5, "mean", "runs")),), 0.0)
    svg = plots.draw(made, 720)
    x = plots.span([1.0, 4.0, 2.0, 0.0], 12, 708)
    assert f'x1="{x(1):.1f}" x2="{x(4):.1f}"' in svg
    assert f'cx="{x(2):.1f}"' in svg
    assert 'class="c0 mark"' in svg


@pytest.mark.parametrize(
    "plot",
    [
        Distributions("d", "x", ()),
        Distributions("d", "x", (Group("same", (1.0, 1.0)), Group("none", ()), Group("one", (2.0,)))),
        Distributions("d", "x", (Group("nan", (float("nan"), 1.0, 2.0)),)),
        Forest("f", "x", (Effect("open", Estimate(1.0, float("nan"), 2.0, 0.95, 5, "", "")),)),
        Lines("l", "x", "y", (curve("flat", [0, 1], np.ones((3, 2))),)),
        Lines("l", "x", "y", (curve("point", [5], np.arange(3.0)[:, None]),)),
    ],
)
def test_odd_data_is_drawn_without_nan(plot):
    svg = plots.draw(plot, 330)
    ElementTree.fromstring(svg)
    assert "nan" not in re.sub(r">[^<]*<", "><", svg)


@settings(max_examples=60, deadline=None)
@given(low=st.floats(-1e9, 1e9), share=st.floats(1e-6, 1e6), most=st.integers(2, 9))
def test_ticks_are_round_few_and_inside(low, share, most):
    scale = plots.Scale(low, low + share * max(abs(low), 1e-3), 0, 100)
    ticks = scale.ticks(most)
    assert len(ticks) <= most + 1
    assert all(-1e-3 <= scale(t) <= 100 + 1e-3 for t in ticks)
    assert len(ticks) >= most // 3


def test_tick_texts_share_a_unit():
    assert plots.tick_texts([-1000.0, -500.0, 0.0]) == ["−1000", "−500", "0"]
    assert plots.tick_texts([0.0, 25_000.0, 50_000.0]) == ["0", "25k", "50k"]
    assert plots.tick_texts([0.25, 0.5]) == ["0.25", "0.50"]


def test_many_dots_are_thinned_but_keep_their_extremes():
    values = np.random.default_rng(0).normal(size=5000)
    svg = plots.draw(Distributions("d", "x", (Group("many", tuple(values.tolist())),)), 720)
    assert svg.count("speck") == plots.MOST_DOTS
    assert f"{values.max():.6g}" in svg
    assert f"{values.min():.6g}" in svg


def test_cells_read_as_numbers():
    assert [cell_text(c) for c in (None, True, 3, 2.0, -12345.0, 0.12345, 123.456, "text")] == [
        "–",
        "yes",
        "3",
        "2",
        "−12,345",
        "0.123",
        "123.5",
        "text",
    ]


def test_tables_and_pictures_are_checked():
    with pytest.raises(PolyactError, match="row 0 has 1 cells, expected 2"):
        Table("t", ("a", "b"), ((1,),))
    with pytest.raises(PolyactError, match="neither SVG"):
        Picture("p", "<p>")
    with pytest.raises(PolyactError, match="no section 'x'"):
        Report("r").section("x")
