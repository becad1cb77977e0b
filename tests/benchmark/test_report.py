"""The report's figures are those of the rows and of the papers, in both formats."""

import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from tsm2.benchmark import NotRun
from tsm2.benchmark.pages import Section
from tsm2.benchmark.report import compose, load_published, to_html, to_markdown
from tsm2.benchmark.report import write_report as write
from tsm2.benchmark.results import COLUMNS, KEY, append_row, read_results, run_folder, run_stem
from tsm2.errors import OutputError


def add(file: Path, model: str, horizon: int, mse: float, seed: int = 0, **more: str) -> None:
    row = dict.fromkeys(COLUMNS, "1") | {
        "dataset": "ETTh1",
        "lookback": "512",
        "horizon": str(horizon),
        "model": model,
        "config": "{}",
        "seed": str(seed),
        "mse": str(mse),
        "mae": str(mse / 2),
        **more,
    }
    append_row(file, row)
    key = tuple(row[name] for name in KEY)
    steps = pd.DataFrame({"step": [1, 2], "mse": [mse, mse], "mae": [mse, mse]})
    steps.to_csv(run_folder(file) / f"{run_stem(key)}.csv", index=False)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """TSM2 with two seeds and RLinear with one; TSM2 alone has a second horizon."""
    file = tmp_path / "r.csv"
    add(file, "TSM2", 96, 0.36, seed=0)
    add(file, "TSM2", 96, 0.38, seed=1)
    add(file, "RLinear", 96, 0.3712)
    add(file, "TSM2", 192, 0.4)
    return file


def section(results: Path, title: str) -> Section:
    (found,) = (each for each in compose(read_results(results)) if each.title == title)
    return found


def cells(results: Path, title: str) -> list[list[str]]:
    table = section(results, title).table
    assert table is not None
    return [[str(cell) for cell in row] for row in table.itertuples(index=False)]


def test_means_and_spread_over_seeds(results: Path) -> None:
    assert cells(results, "MSE") == [
        ["ETTh1", "96", "**0.3700** ± 0.0141", "0.3712"],
        ["ETTh1", "192", "**0.4000**", ""],
    ]
    assert cells(results, "MAE")[0][2:] == ["**0.1850** ± 0.0071", "0.1856"]
    assert "(TSM2 2, RLinear 1)" in section(results, "MSE").text


def test_published_figures_stand_beside_ours(results: Path) -> None:
    rows = {row[0]: row[1:] for row in cells(results, "ETTh1: MSE beside published figures")}
    assert rows["TSM2"] == ["0.370", "0.400"]
    assert rows["RLinear"] == ["0.371", ""]
    assert rows["TSM2 (published, lookback 512)"] == ["0.375", "0.398"]
    assert rows["DLinear (published, lookback 336)"] == ["0.375", "0.405"]
    assert rows["TSM2-MLP (published, lookback 512)"] == ["0.386", ""]
    sources = section(results, "Sources of the published figures").items
    assert "TSM2: Behrouz et al. (2024), arXiv:2403.19888v4, table 5" in sources


def test_ranks_and_duels(results: Path) -> None:
    assert cells(results, "Mean rank") == [["TSM2", "1.00"], ["RLinear", "2.00"]]
    assert "over the 1 of 2 rows" in section(results, "Mean rank").text
    duels = {row[0]: row[1:] for row in cells(results, "Wins and losses of TSM2")}
    assert duels["RLinear"] == ["1", "0", "0"]
    assert duels["TSM2 (published, lookback 512)"] == ["1", "0", "1"]
    assert duels["PatchTST (published, lookback 512)"] == ["1", "1", "0"]


def test_runs_of_one_model_are_told_apart(results: Path) -> None:
    add(results, "RLinear", 96, 0.5, lookback="96")
    add(results, "TSM2", 96, 0.6, config='{"blocks": 2}')
    table = section(results, "MSE").table
    assert table is not None
    assert list(table)[2:] == ["TSM2 (1)", "RLinear (1)", "RLinear (2)", "TSM2 (2)"]
    assert section(results, "Models").items == (
        "TSM2 (1): lookback 512",
        "RLinear (1): lookback 512",
        "RLinear (2): lookback 96",
        "TSM2 (2): lookback 512, blocks=2",
    )


def test_the_published_table_is_complete() -> None:
    table = load_published()
    assert not table.duplicated(["dataset", "horizon", "model"]).any()
    assert table["source"].str.contains("arXiv:").all()
    assert table["mse"].between(0.08, 5).all()
    counts = table["model"].value_counts()
    full = ["TSM2", "SAMformer", "FEDformer", "DLinear", "NLinear", "iTransformer", "RepeatLast"]
    assert (counts[full] == 32).all()
    assert counts["PatchTST"] == counts["Pyraformer"] == 28  # neither has Exchange
    assert counts["TSM2-MLP"] == counts["Mamba + Linear Time"] == 4
    tsm2 = table[table["model"] == "TSM2"].groupby("dataset")["mse"].mean()
    averages = {"ETTh1": 0.4035, "ETTh2": 0.33375, "ETTm1": 0.361, "ETTm2": 0.2675}
    averages |= {"Electricity": 0.16975, "Exchange": 0.4435, "Traffic": 0.42, "Weather": 0.2395}
    assert tsm2.to_dict() == pytest.approx(averages)


class _Balance(HTMLParser):
    """Counts what is open; `void` tags have no end."""

    void = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_both_formats_say_the_same(results: Path, tmp_path: Path) -> None:
    lost = NotRun(what="Traffic", reason="not <here>\nat all")
    written = write(results, tmp_path / "report", not_run=[lost])
    markdown = written["markdown"].read_text(encoding="utf-8")
    page = written["html"].read_text(encoding="utf-8")
    assert "| ETTh1 | 96 | **0.3700** ± 0.0141 | 0.3712 |" in markdown
    assert ">0.3700 ± 0.0141</td>" in page
    assert page.count('best" >0.3700 ± 0.0141') == 1  # the best of the row is marked
    assert 'best" >0.3712' not in page
    assert "data:image/svg+xml;base64," in page
    assert "steps.svg" not in page  # the page needs no other file
    assert "- Traffic: not &#60;here&#62; at all" in markdown
    assert "Traffic: not &lt;here&gt;" in page
    for title in ("Not run", "Protocol", "Errors per step", "Mean rank"):
        assert f"## {title}\n" in markdown
        assert f"<h2>{title}</h2>" in page
    assert "<svg" in written["picture"].read_text(encoding="utf-8")
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []


def test_without_matplotlib_there_is_no_picture(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    written = write(results, tmp_path / "report")
    assert set(written) == {"markdown", "html"}
    assert "per step" not in written["markdown"].read_text(encoding="utf-8")


def test_an_empty_file_gives_the_protocol_alone(tmp_path: Path) -> None:
    sections = compose(read_results(tmp_path / "none.csv"))
    assert [each.title for each in sections] == ["Protocol"]
    assert to_markdown(sections).startswith("# ")
    assert "<h2>Protocol</h2>" in to_html(sections)


def test_a_table_without_published_figures(tmp_path: Path) -> None:
    add(tmp_path / "r.csv", "RLinear", 24, 0.5, dataset="sample")
    titles = [each.title for each in compose(read_results(tmp_path / "r.csv"))]
    assert "MSE" in titles
    assert not [title for title in titles if "published" in title or "Wins" in title]


def test_a_folder_that_cannot_be_made_is_refused(results: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot write the report"):
        write(results, tmp_path / "taken")


def test_damaged_curves_are_told(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    key = read_results(results)[list(KEY)].iloc[0]
    file = run_folder(results) / f"{run_stem(tuple(map(str, key)))}.csv"
    for text in ("", "step,mse\n1,low\n", "other\n1\n"):
        file.write_text(text)
        with pytest.raises(OutputError, match=r"is damaged .* Delete it"):
            write(results, tmp_path / "report")


def test_what_a_file_says_stays_text_in_markdown() -> None:
    names = {"<script>": ["[a](http://b)"], "`x`|": ["**1.0**"]}
    text = to_markdown([Section(title="T", table=pd.DataFrame(names), items=("![p](q)\n# r",))])
    for forbidden in ("<script", "[a]", "`", "![", "\n# r"):
        assert forbidden not in text
    assert "| **1.0** |" in text
