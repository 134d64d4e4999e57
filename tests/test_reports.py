"""A report: every kind of view drawn from the record's numbers, inert whatever text it holds, the same each time."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

import synthetic
from microtome.core.errors import RecordError
from microtome.records import Record, StageOutput
from microtome.reports import export_figures, render
from microtome.reports.kinds import kinds

OPENS = re.compile(r"url\(\s*['\"]?(?!#)|@import|https?://(?!www\.w3\.org/)", re.I)


class Page(HTMLParser):
    """Tags with their attributes, the texts between them, and the raw content of script and style."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        inside = self.tags[-1][0] if self.tags else ""
        (self.raw[inside] if inside in self.raw and self.cdata_elem else self.texts).append(data)

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> tuple[Record, str]:
    record = synthetic.write(tmp_path_factory.mktemp("runs") / "first")
    return record, render(record, synthetic.STUDY).read_text(encoding="utf-8")


def figure(html: str, title: str) -> str:
    return next(f for f in re.findall(r"<figure.*?</figure>", html, re.S) if title in f)


def marks(svg: str, role: str) -> int:
    return svg.count(f'role="graphics-symbol" aria-roledescription="{role}"')


def test_the_invented_record_shows_every_kind_there_is(rendered):
    assert {v["kind"] for v in rendered[0].manifest.views} == set(kinds())


@pytest.mark.parametrize(
    ("title", "role", "count"),
    [
        ("Each set costs its own task", "rect mark", 4 + 50 + 1),  # 2 sets x 2 tasks, 50 bins, the interval
        ("Recall sits at the country", "rect mark", 2 * 8 * 7),
        ("One head reads the context", "rect mark", 8 * 8),
        ("A few neurons carry recall", "point", 2 * 7),
        ("Recall comes before reasoning", "point", 2 * 2 * 8),
        ("The model recalls and reads", "point", 4 * 2),
        ("also flags an untrained network", "bar", 2 * 2),
        ("ranks units as exact patching", "circle", 120),
    ],
)
def test_a_figure_has_one_mark_per_row(rendered, title, role, count):
    svg = figure(rendered[1], title)
    assert "<svg" in svg and marks(svg, role) == count


def test_a_figure_says_its_n_interval_and_control_and_its_axes_with_units(rendered):
    shown = figure(rendered[1], "A few neurons carry recall")
    for text in (
        "n = 240",
        synthetic.INTERVAL,
        "control: 200 matched random sets",
        "neurons ablated (count)",
        "Figure 4",
    ):
        assert text in shown


def test_a_control_that_all_series_share_is_drawn_once_a_control_per_series_apart(rendered, tmp_path):
    view = next(v for v in rendered[0].manifest.views if v["title"].startswith("A few neurons"))
    bands = figure(rendered[1], "A few neurons").count('stroke-dasharray="5,4"')
    own = {**view, "encodings": {**view["encodings"], "null": "drop"}}
    apart = (
        render(synthetic.write(tmp_path / "apart", [own])).read_text(encoding="utf-8").count('stroke-dasharray="5,4"')
    )
    assert (bands, apart) == (1, 2)


def test_a_table_view_is_sorted_cut_and_formatted(rendered):
    rows = re.findall(r"<td[^>]*>(.*?)</td>", figure(rendered[1], "The neurons that matter most"), re.S)
    assert rows[0] == "blocks.0.mlp.neurons[0]" and rows[1::4] == ["+1.000", "+0.500", "+0.333"]
    assert "3 of 5 rows" in figure(rendered[1], "The neurons that matter most")


def test_every_verdict_stands_there_and_only_measured_ones_make_headlines(rendered):
    page = rendered[1]
    for claim, verdict in synthetic.claims():
        assert verdict.outcome in page and verdict.reason.replace("'", "&#39;") in page and claim.place in page
    assert page.count('<p class="what">') == 3 and "untrained network: 0.485" in page


def test_text_from_data_stays_text(rendered):
    page = Page(rendered[1])
    ours = (Path(synthetic.__file__).parents[1] / "src/microtome/reports/template/report.js").read_text().strip()
    assert [s.strip() for s in page.raw["script"]] == [ours] and len(page.named("script")) == 1
    assert not [t for t, _ in page.tags if t in ("img", "iframe", "object", "embed", "link", "form", "base", "image")]
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert sum(synthetic.HOSTILE in text for text in page.texts) >= 4  # claim, paragraph, cell, config


def test_words_between_backticks_are_code_and_still_text(tmp_path):
    caption = f"See the table `drops`; not `{synthetic.HOSTILE}`."
    page = render(synthetic.write(tmp_path / "run", [{"kind": "text", "title": "t", "caption": caption}])).read_text()
    assert "the table <code>drops</code>; not" in page and not Page(page).named("img")


def test_the_contents_name_every_view_and_lead_to_it(rendered):
    listed = re.search(r'<details class="contents">.*?</details>', rendered[1], re.S)[0]
    targets = re.findall(r'href="#(view-\d+)"', listed)
    shown = re.findall(r'<figure id="(view-\d+)"', rendered[1])
    assert targets == shown and len(shown) == len(synthetic.views())


def test_the_page_loads_nothing(rendered):
    page = Page(rendered[1])
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "http" not in policy
    targets = [a[k] for _, a in page.tags for k in ("src", "href", "xlink:href", "action", "data") if k in a]
    assert targets and all(t.startswith("#") for t in targets)
    assert {t[1:] for t in targets} <= {a["id"] for _, a in page.tags if "id" in a}
    assert not any(OPENS.search(text) for text in [*page.raw["style"], *page.raw["script"]])
    assert not [v for _, a in page.tags for k, v in a.items() if not k.startswith("xmlns") and OPENS.search(v or "")]


def test_a_hostile_page_is_noticed_by_these_tests():
    page = Page(f"<p>{synthetic.HOSTILE}</p>")
    assert page.named("script") and page.named("img")
    assert OPENS.search("url(x.png)") and OPENS.search("https://example.org/a.js") and not OPENS.search("url(#a)")


def test_one_record_gives_the_same_bytes_in_another_process_and_place_without_torch(rendered, tmp_path):
    record, page = rendered
    shutil.copytree(record.path, tmp_path / "first")
    code = (
        "import sys, synthetic; from microtome.reports import render; render(sys.argv[1], synthetic.STUDY);"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(synthetic.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "first")], env=environment)
    assert done.returncode == 0 and (tmp_path / "first" / "report.html").read_bytes() == page.encode()


def test_figures_are_written_as_svg_and_png_with_their_titles(tmp_path):
    shown = [v for v in synthetic.views() if v["kind"] in ("bars", "text", "table")]
    written = export_figures(synthetic.write(tmp_path / "run", shown), tmp_path / "figures")
    assert [p.name for p in written] == [
        f"02-bars-the-authors-statistic-also-flags-an-untrained-netw.{s}" for s in ("svg", "png")
    ]
    assert "control: untrained model" in written[0].read_text() and "also flags an untrained" in written[0].read_text()
    assert written[1].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(RecordError, match="found a file there"):
        export_figures(tmp_path / "run", tmp_path / "run" / "record.json")


def test_an_unfinished_record_says_so_and_a_finished_one_does_not(rendered, tmp_path):
    assert "not finished" not in rendered[1]
    with pytest.raises(RuntimeError), Record.open(tmp_path / "cut", study="toy", config={"seed": 0}, seed=0) as record:
        record.stage("one", lambda: StageOutput(tables={"t": [{"a": 1}]}))
        raise RuntimeError("the power went")
    page = render(tmp_path / "cut").read_text()
    assert "This run is not finished (status: interrupted)" in page and "This record holds no claims" in page


def test_nothing_is_written_for_a_record_that_does_not_fit_its_views(tmp_path):
    record = synthetic.write(tmp_path / "run", [{**synthetic.views()[2], "table": "patchnig"}])
    with pytest.raises(RecordError, match="Did you mean 'patching'"):
        render(record)
    assert not (tmp_path / "run" / "report.html").exists()
    with pytest.raises(RecordError, match="No record at"):
        render(tmp_path / "nowhere")


def test_missing_numbers_are_dropped_and_counted(tmp_path):
    view = next(v for v in synthetic.views() if v["kind"] == "bars")
    rows = [{"statistic": s, "share": v, "model": "a"} for s, v in (("one", 0.5), ("two", None), ("three", 0.25))]
    with Record.open(tmp_path / "run", study="toy", config={}, seed=0) as record:
        record.stage("one", lambda: StageOutput(tables={"flagged": rows}))
        record.views([view])
    page = render(tmp_path / "run").read_text()
    assert marks(page, "bar") == 2 and "1 rows without a value are not drawn" in page


def test_the_whole_configuration_stands_there_as_toml_that_reads_back(rendered):
    text = Page(rendered[1]).texts
    toml = next(t for t in text if t.startswith("model = "))
    config = rendered[0].manifest.config
    assert tomllib.loads(toml) == {**config, "sweep": {**config["sweep"], "site": "none"}}
