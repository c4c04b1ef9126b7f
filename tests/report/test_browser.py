"""The page in a real browser: clicks, filters, files, keyboard, and nothing it must not do."""

import csv
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser, download, eventually, go, grid_cells, opened
from report_pages import FEW, MOE, SIX, stored

from sparcom.analysis.explore.instructions import unit_names
from sparcom.report.page import render_report, write_report
from sparcom.report.view import PageServer
from sparcom.store import Run

pytestmark = pytest.mark.slow
VIEWS = ("overview", "overlap", "depth", "units", "instructions", "statistics")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A dense run with discoveries, and its page."""
    folder = tmp_path_factory.mktemp("runs") / "dense"
    sources = ("human",) * 6 + ("ai",) * 6
    location = stored(folder, SIX * 40, sources=sources, text="Name the river <b>Oder</b>")
    write_report(location, FEW)
    return Run(location)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Run:
    location = stored(tmp_path_factory.mktemp("runs") / "moe", SIX * 12, MOE)
    write_report(location, FEW)
    return Run(location)


def url_of(run: Run, name: str = "report.html") -> str:
    return (Path(run.store.location) / name).as_uri()


def table(run: Run, name: str) -> list[dict]:
    return run.table(name).to_pylist()


@pytest.mark.parametrize("which", ["run", "moe"])
def test_every_view_is_drawn_without_an_error_or_a_request(
    chromium: Any, which: str, request: pytest.FixtureRequest
) -> None:
    one = request.getfixturevalue(which)
    with opened(chromium, url_of(one)) as page:
        assert page.locator("#overview .finding").count() == 3
        eventually(lambda: page.locator("#overview .plot svg").count() == 3)
        for view in VIEWS:
            go(page, view)
            assert page.locator("nav a[aria-current]").inner_text().lower() == view
            shown = page.locator("section[data-view]:visible")
            assert [shown.nth(k).get_attribute("id") for k in range(shown.count())] == [view]
        for picker in page.locator("#overlap select, #depth select, #units select").all():
            assert picker.evaluate("node => node.labels.length") == 1


def test_a_family_is_chosen_in_a_mixture_of_experts(chromium: Any, moe: Run) -> None:
    with opened(chromium, url_of(moe), "overlap") as page:
        page.locator("#overlap").get_by_label("Sets of").select_option("experts")
        page.get_by_role("button", name="Open pairs and shared units").click()
        page.locator("#cell h3").wait_for()
        rows = [r for r in table(moe, "pairs") if (r["family"], r["a"], r["b"], r["end"])
                == ("experts", "CLS", "CLS", "most")]  # fmt: skip
        page.locator("#cell .ag-row").first.wait_for()
        first = page.locator("#cell .ag-row button").first.inner_text()
        assert first == f"{rows[0]['jaccard']:.3f}"
        go(page, "units")
        page.locator("#units").get_by_label("Components").select_option("experts")
        names = set(unit_names(moe.table("components_experts")))
        page.wait_for_function(
            "document.querySelector('#units [role=status]').textContent.includes('experts')"
        )
        assert set(grid_cells(page, "#units", 1)) <= names


def test_a_cell_of_the_heatmap_opens_its_pairs_and_shared_units(chromium: Any, run: Run) -> None:
    with opened(chromium, url_of(run)) as page:
        plot = page.locator("#overview .chart[data-chart=overlap] .plot")
        found = plot.locator("text").filter(has_text="QA").all()
        boxes = sorted((text.bounding_box() for text in found), key=lambda box: box["x"])
        assert len(boxes) == 4  # of rows and of columns, in two heatmaps
        row, column = boxes[:2]
        assert column["y"] > row["y"]
        end = column["x"] + column["width"]  # a tilted label ends below its column
        page.mouse.click(end - 6, row["y"] + row["height"] / 2)
        page.locator("#overlap #cell h3").wait_for()
        assert page.locator("#cell h3").inner_text() == "Two instructions of QA"
        cell = next(r for r in table(run, "category_matrix")
                    if (r["family"], r["a"], r["b"]) == ("neurons", "QA", "QA"))  # fmt: skip
        assert page.locator("#cell dd").first.inner_text().startswith(f"{cell['value']:.3f} (95 %")
        page.locator("#cell .ag-row").first.wait_for()
        for end, place in (("most", 0), ("least", 1)):
            rows = [
                r for r in table(run, "pairs") if (r["a"], r["b"], r["end"]) == ("QA", "QA", end)
            ]
            grid = page.locator("#cell .grid").nth(place)
            grid.locator(".ag-row").first.wait_for()
            shown = [b.inner_text() for b in grid.locator(".ag-row button").all()]
            assert shown == [f"{row['jaccard']:.3f}" for row in rows]
        shared = page.locator("#cell .grid").nth(2).locator(".ag-row button").first.inner_text()
        units = table(run, "components_neurons")
        names = dict(zip(unit_names(run.table("components_neurons")), units, strict=True))

        def more(row: dict) -> float:
            others = [row[f"prevalence_{name}"] for name in SIX if name != "QA"]
            return row["prevalence_QA"] - max(others)

        assert more(names[shared]) == pytest.approx(max(more(r) for r in units), abs=1e-3)
        page.locator("#cell .ag-row button").first.click()
        page.locator("#dialog .text").nth(1).wait_for()
        assert page.locator("#dialog .text").count() == 2


def status(page: Any, view: str) -> int:
    return int(
        page.locator(f"#{view} [role=status]").inner_text().split(" of ")[0].replace(",", "")
    )


def test_units_are_filtered_sorted_searched_and_saved(chromium: Any, run: Run) -> None:
    tests = table(run, "tests_neurons")
    alpha = table(run, "analysis_options")[0]["alpha"]
    enriched = [r for r in tests if (r["q_QA"] or 1) <= alpha and r["difference_QA"] > 0]
    general = [r for r in table(run, "components_neurons") if r["general"]]
    with opened(chromium, url_of(run), "units") as page:
        whole = status(page, "units")
        page.get_by_role("button", name="general").click()
        eventually(lambda: status(page, "units") == len(general))
        page.get_by_role("button", name="general").click()
        eventually(lambda: status(page, "units") == whole)
        page.locator("#units").get_by_label("Category").select_option(label="QA")
        page.get_by_role("button", name="enriched").click()
        eventually(lambda: status(page, "units") == len(enriched) > 5)
        saved = download(page, page.get_by_role("button", name="Download CSV").first).decode()
        rows = list(csv.DictReader(io.StringIO(saved)))
        assert len(rows) == len(enriched)
        names = {f"{r['layer']}:{r['unit']}": r for r in enriched}
        assert {row["unit"] for row in rows} == set(names)
        for row in rows:
            of = names[row["unit"]]
            assert float(row["there (raw: share of tokens)"]) == pytest.approx(
                of["frequency_QA"], abs=1e-3
            )
            difference = float(row["difference (adjusted for length and source)"])
            assert difference == pytest.approx(of["difference_QA"], abs=1e-3)
        least = [row["least (adjusted for length and source)"] for row in rows]
        gaps = [float(gap) for gap in least if gap]
        assert gaps
        assert gaps == sorted(gaps, reverse=True)
        page.get_by_label("Layer from").fill("2")
        upper = sum(r["layer"] >= 2 for r in enriched)
        eventually(lambda: status(page, "units") == upper)
        page.get_by_label("Layer from").fill("0")
        wanted = rows[0]["unit"]
        page.get_by_label("Search").first.fill(wanted)
        eventually(lambda: status(page, "units") < len(enriched))
        eventually(lambda: wanted in grid_cells(page, "#units", 1))
        page.get_by_label("Search").first.fill("")
        eventually(lambda: status(page, "units") == len(enriched))
        found = sorted(r["layer"] for r in enriched)
        for order in (found[::-1], found):
            page.get_by_role("columnheader", name="layer").click()
            eventually(lambda order=order: first_layers(page) == order[: len(first_layers(page))])


def first_layers(page: Any) -> list[int]:
    return [int(text) for text in grid_cells(page, "#units", 2)]


def test_a_unit_opens_its_examples_and_the_way_goes_on(chromium: Any, run: Run) -> None:
    examples = table(run, "examples")
    with opened(chromium, url_of(run), "units") as page:
        unit = grid_cells(page, "#units", 1)[0]
        page.locator("#units").get_by_role("button", name=unit, exact=True).first.click()
        page.locator("#dialog .example").first.wait_for()
        assert page.locator("#dialog-title").inner_text() == f"Unit {unit}"
        layer, number = map(int, unit.split(":"))
        rows = [r for r in examples if (r["layer"], r["unit"]) == (layer, number)]
        links = page.locator("#dialog .example button")
        assert [b.inner_text() for b in links.all()] == [row["id"] for row in rows]
        told = page.locator("#dialog .example").first.inner_text()
        assert f"fires on {rows[0]['count']} of {rows[0]['tokens']} tokens" in told
        assert "%), not traced" in told
        assert "Name the river <b>Oder</b>" in told
        assert f"--unit {unit}" in page.locator("#dialog code").inner_text()
        links.first.click()
        page.locator("#dialog-title", has_text=f"Instruction {rows[0]['id']}").wait_for()
        nearest = [r for r in table(run, "nearest")
                   if (r["family"], r["id"]) == ("neurons", rows[0]["id"])]  # fmt: skip
        page.locator("#dialog .ag-row").first.wait_for()
        shown = page.locator("#dialog .grid").first.locator(".ag-row button")
        assert [b.inner_text() for b in shown.all()] == [r["other"] for r in nearest]
        members = page.locator("#dialog .grid").nth(1).locator(".ag-row button")
        name = members.first.inner_text()
        members.first.click()
        page.locator("#dialog-title", has_text=f"Unit {name}").wait_for()
        page.keyboard.press("Escape")
        assert not page.locator("#dialog").is_visible()


def test_instructions_are_searched(chromium: Any, run: Run) -> None:
    with opened(chromium, url_of(run), "instructions") as page:
        assert status(page, "instructions") == 240
        page.locator("#instructions").get_by_label("Category").select_option("SUM")
        eventually(lambda: status(page, "instructions") == 40)
        page.locator("#instruction-search").fill("i11")
        ids = [
            r["id"]
            for r in table(run, "instructions")
            if "i11" in r["id"] and r["category"] == "SUM"
        ]
        eventually(lambda: sorted(grid_cells(page, "#instructions", 1)) == sorted(ids))
        page.locator("#instruction-search").fill("no such text")
        eventually(lambda: status(page, "instructions") == 0)


def test_figures_and_tables_are_saved(chromium: Any, run: Run) -> None:
    with opened(chromium, url_of(run)) as page:
        under = page.locator("#overview .finding").nth(1).locator(".under")
        rows = list(
            csv.DictReader(
                io.StringIO(download(page, under.get_by_role("button", name="CSV")).decode())
            )
        )
        stored_rows = [r for r in table(run, "layers") if r["family"] == "neurons"]
        means = {(r["category"], str(r["layer"])): r["mean"] for r in stored_rows}
        for row in rows:
            if row["category"] in SIX:
                mean = means.pop((row["category"], row["layer"]))
                assert float(row["mean"]) == pytest.approx(mean, rel=1e-3)
        assert not means
        assert download(page, under.get_by_role("button", name="PNG")).startswith(b"\x89PNG")
        assert b"<svg" in download(page, under.get_by_role("button", name="SVG"))[:200]
        go(page, "statistics")
        page.locator("#statistics details").nth(1).locator("summary").click()
        figure = page.locator("#statistics figure").first
        name = figure.get_attribute("data-name")
        folder = Path(run.store.location) / "figures"
        pdf = download(page, figure.get_by_role("button", name="PDF"))
        assert pdf == (folder / f"{name}.pdf").read_bytes()
        assert b"<svg" in download(page, figure.get_by_role("button", name="SVG"))[:200]
        assert download(page, figure.get_by_role("button", name="PNG")).startswith(b"\x89PNG")
        page.locator("#statistics details").first.locator("summary").click()
        text = download(page, page.get_by_text("Download CSV").first).decode()
        assert [row[0] for row in csv.reader(io.StringIO(text))][1:] == list(SIX)


def test_the_keyboard_alone_opens_a_unit(chromium: Any, run: Run) -> None:
    with opened(chromium, url_of(run)) as page:
        page.locator("nav a[href='#units']").focus()
        page.keyboard.press("Enter")
        page.locator("#units .ag-row").first.wait_for()
        page.locator("#unit-search").focus()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('[role=gridcell]') !== null"):
                break
            if page.evaluate("document.activeElement.closest('.ag-header') !== null"):
                page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.locator("#dialog-title", has_text="Unit ").wait_for()
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.closest('[role=gridcell]') !== null")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_wcag_is_broken(chromium: Any, run: Run, scheme: str) -> None:
    """axe-core's rules of WCAG 2.2 A and AA, contrast included, in every view and a dialog."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}

    def broken(page: Any) -> list[tuple[str, str]]:
        found = axe.run(page, options=options).response["violations"]
        return [(v["id"], n["html"][:200]) for v in found for n in v["nodes"]]

    with opened(chromium, url_of(run), color_scheme=scheme) as page:
        for view in VIEWS:
            go(page, view)
            assert broken(page) == [], view
        go(page, "units")
        page.locator("#units .ag-row button").first.click()
        page.locator("#dialog .plot svg").first.wait_for()
        assert broken(page) == []


def test_a_phone_shows_it_without_scrolling_sideways(chromium: Any, run: Run) -> None:
    with opened(chromium, url_of(run), viewport={"width": 360, "height": 740}) as page:
        for view in VIEWS:
            go(page, view)
            width = page.evaluate("document.scrollingElement.scrollWidth")
            assert width <= 360, view


def test_print_holds_the_findings_and_the_statistics(chromium: Any, run: Run) -> None:
    with opened(chromium, url_of(run), "units") as page:
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#overview").is_visible()
        assert page.locator("#statistics figure").first.is_visible()
        assert not page.locator("nav").is_visible()
        assert not page.locator("#units").is_visible()
        assert page.pdf().startswith(b"%PDF")


def test_the_theme_is_switched(chromium: Any, run: Run) -> None:
    with opened(chromium, url_of(run), color_scheme="light") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        for expected in (light, "dark", light):
            page.locator("#theme").click()
            now = page.evaluate(ground)
            assert (now == light) == (expected == light)


EVIL = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "{a|b}", "=1+1",
        "a.b[0]", "\u202ereversed")  # fmt: skip


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_texts_are_shown_as_text(chromium: Any, tmp_path: Path) -> None:
    labels = EVIL * 30
    ids = [f"{EVIL[k % 2]}{k}" for k in range(len(labels))]
    location = stored(tmp_path / "run", labels, ids=ids, text=EVIL[0] + EVIL[1], sources=EVIL[:2],
                      model={"path": f"/models/{EVIL[0]}", "weights": EVIL[1]})  # fmt: skip
    write_report(location, FEW)
    with opened(chromium, url_of(Run(location))) as page:
        for view in VIEWS:
            go(page, view)
            if view == "overlap":
                page.get_by_role("button", name="Open pairs and shared units").click()
                page.locator("#cell .ag-row button").first.click()
                page.locator("#dialog-title").wait_for()
                page.keyboard.press("Escape")
            if view in ("units", "instructions"):
                page.locator(f"#{view} .ag-row button").first.click()
                page.locator("#dialog .plot svg").first.wait_for()
                page.mouse.move(640, 400)
                page.keyboard.press("Escape")
        assert page.locator("img, b").count() == 0
        assert page.locator("h1").inner_text().startswith(EVIL[0])
        go(page, "overview")
        box = page.locator("#overview .plot").first.bounding_box()
        for k in range(1, 12):
            page.mouse.move(box["x"] + box["width"] * k / 12, box["y"] + box["height"] / 3)
        for plot in page.locator("#overview .plot").all():
            assert plot.locator("img").count() == 0
        saved = download(page, page.locator("#overview .finding").first.get_by_text("CSV")).decode()
        assert "'=1+1" in saved
        text = page.locator("#overview").inner_text()
        assert "\u202e" not in text


def test_several_runs_stand_side_by_side(chromium: Any, run: Run, moe: Run) -> None:
    page_of_all = render_report([run.store.location, moe.store.location])
    assert page_of_all == f"{moe.store.location}/runs.html"
    with opened(chromium, url_of(moe, "runs.html")) as page:
        assert page.locator("h1").count() == 2
        eventually(lambda: page.locator("#overview .plot svg").count() == 6)
        left, right = (page.locator("#overview .finding").nth(k).bounding_box() for k in (0, 1))
        assert left["x"] < right["x"]
        assert left["y"] == right["y"]
        go(page, "overlap")
        eventually(lambda: page.locator("#overlap .plot svg").count() == 2)
        go(page, "units")
        before = status(page, "units")
        page.locator("#run").select_option("1")
        page.locator("#units .ag-row").first.wait_for()
        held = moe.table("components_neurons").num_rows
        eventually(lambda: status(page, "units") >= held and status(page, "units") != before)


def test_the_served_page_loads_its_blocks_as_asked_for(chromium: Any, run: Run) -> None:
    with PageServer([run.store.location]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked: list[str] = []
        with opened(chromium, server.url, allowed=server.url) as page:
            page.on("request", lambda r: asked.append(r.url.removeprefix(server.url)))
            assert page.locator("script[type='application/json+gzip']").count() == 0
            go(page, "units")
            assert asked == ["data/0/units-neurons"]
            page.locator("#units .ag-row button").first.click()
            page.locator("#dialog .example").first.wait_for()
            assert asked == ["data/0/units-neurons", "data/0/instructions"]
        server.shutdown()
