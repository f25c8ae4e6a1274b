"""The report in a real browser, from the file system: clicked, dragged and typed at, light and dark."""

from __future__ import annotations

import re
import shutil

import pytest

PAGES = ("Overview", "Matches", "Try it", "Tables", "Gallery", "Models")
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def open_report(open_page, report_site):
    """A function (file name, options of the context) -> page, from the file system."""
    return lambda name="index.html", **options: open_page(f"{report_site.folder.as_uri()}/{name}", **options)


def counts(page) -> dict[str, str]:
    page.wait_for_selector("#stage[aria-busy=false]")
    names = ("matches", "correct", "wrong", "precision", "error")
    return {name: page.inner_text(f"#count_{name}") for name in names}


def lines(page, kind: str) -> int:
    """Number of lines that are drawn."""
    return (page.get_attribute(f"#stage path.line.{kind}", "d") or "").count("L")


def status(page) -> str:
    counts(page)
    return page.inner_text("#status")


def test_every_page_is_reached_by_clicking(open_report):
    page = open_report()
    for words in PAGES:
        page.get_by_role("link", name=words, exact=True).first.click()
        assert words in page.title()
        assert page.locator("nav [aria-current=page]").inner_text() == words
    page.get_by_role("link", name="Notebook 01").click()
    for _ in range(5):
        page.locator(".turn .next").click()
    assert page.url.endswith("06_compare_sift.html") and page.locator(".turn .next").count() == 0
    page.get_by_role("link", name="kp2d", exact=True).click()
    assert page.url.endswith("index.html")


def test_pair_method_and_k_change_what_is_drawn(open_report):
    page = open_report("matches.html")
    seen = [counts(page)]
    picture = page.get_attribute("#stage image >> nth=1", "href")
    for control, value in (("#method", "sift"), ("#pair", "i_coffee 1-2"), ("#lines", "50")):
        page.select_option(control, value)
        seen.append(counts(page))
    page.get_by_text("150", exact=True).click()
    seen.append(counts(page))
    assert seen[0] != seen[1] != seen[2] == seen[3] != seen[4]
    assert page.get_attribute("#stage image >> nth=1", "href") != picture
    assert lines(page, "correct") + lines(page, "wrong") == min(50, int(seen[-1]["matches"]))
    for found in seen:
        assert int(found["correct"]) + int(found["wrong"]) == int(found["matches"])
    loaded = page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert loaded


def drag(page, slider: str, start: float, end: float):
    box = page.locator(slider).bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], middle, steps=6)
    page.mouse.up()


def test_dragging_the_tolerance_recolours_and_dragging_the_distance_filters(open_report):
    page = open_report("matches.html#pair=v_astronaut 1-3&method=orb&k=300&lines=all")
    before = counts(page)
    assert lines(page, "correct") == int(before["correct"]) and lines(page, "wrong") == int(before["wrong"])
    drag(page, "#px", 0.27, 0.01)
    strict = counts(page)
    assert page.inner_text("#px_text") == "0.5 px"
    assert strict["matches"] == before["matches"] and int(strict["correct"]) < int(before["correct"])
    assert lines(page, "correct") == int(strict["correct"])
    drag(page, "#distance", 0.98, 0.5)
    filtered = counts(page)
    assert 0 < int(filtered["matches"]) < int(before["matches"])
    assert "at most" in page.inner_text("#distance_text")
    page.select_option("#method", "sift")
    counts(page)
    assert page.inner_text("#distance_text") == "any"


def test_an_address_restores_its_view_and_follows_what_is_chosen(open_report):
    address = "matches.html#pair=i_coffee+1-3&method=orb&k=150&px=1.5&lines=50&distance=40"
    page = open_report(address)
    expected = status(page)
    assert expected.startswith("i_coffee 1-3, orb, 150 keypoints") and "within 1.5 px" in expected
    assert page.input_value("#distance") == "40"
    page.select_option("#method", "sift")
    assert re.search(r"#pair=i_coffee\+1-3&method=sift&k=150&px=1.5&lines=50$", page.url)
    page.evaluate("location.hash = '#pair=i_coffee+1-3&method=orb&k=150&px=1.5&lines=50&distance=40'")
    page.wait_for_function("document.getElementById('method').value === 'orb'")
    assert status(page) == expected


def test_an_address_with_nonsense_shows_the_first_view(open_report):
    usual = status(open_report("matches.html"))
    odd = "matches.html#pair=<b>&method=sfit&k=7&px=NaN&lines=-1&distance=x"
    assert status(open_report(odd)) == usual


def test_the_keyboard_is_enough(open_report):
    page = open_report("matches.html")
    first = status(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(old) => document.getElementById('status').textContent !== old", arg=first)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("(old) => document.getElementById('status').textContent === old", arg=first)
    page.keyboard.press("m")
    page.wait_for_function("document.getElementById('method').value === 'sift'")
    page.focus("#px")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#px_text") == "3.5 px"
    page.focus("#top_k input:checked")
    page.keyboard.press("ArrowLeft")
    assert "k=150" in page.url
    page.get_by_role("button", name="orb").focus()
    page.keyboard.press("Enter")
    assert "method=orb" in page.url


def test_controls_have_names_for_those_who_cannot_see(open_report):
    page = open_report("matches.html")
    counts(page)
    for name in ("Pair", "Method", "Lines drawn, best first"):
        assert page.get_by_role("combobox", name=name, exact=True).count() == 1
    assert page.get_by_role("slider").count() == 2
    assert page.get_by_role("group", name="Keypoints an image, k").get_by_role("radio").count() == 2
    assert "matches" in page.get_attribute("#stage", "aria-label")
    assert page.locator("h1").count() == 1 and page.locator("html").get_attribute("lang") == "en"


def test_tables_open_and_sort_both_ways(open_report):
    page = open_report("tables.html")
    box = page.locator("details.table", has_text="evaluation").first
    box.locator("summary").click()
    heading = box.get_by_role("button", name="matching_score_low")
    column = heading.evaluate("(button) => button.parentElement.cellIndex")

    def values():
        return [float(text) for text in box.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()]

    heading.click()
    assert values() == sorted(values())
    heading.click()
    assert values() == sorted(values(), reverse=True) and len(set(values())) > 2


def all_pages(report_site):
    return sorted(path.name for path in report_site.folder.glob("*.html"))


def test_no_page_is_wider_than_a_phone(open_report, report_site):
    page = open_report("matches.html", viewport=PHONE, has_touch=True)
    counts(page)
    boxes = [image.bounding_box() for image in page.locator("#stage image").all()]
    assert boxes[0]["x"] == boxes[1]["x"], "one picture below the other"
    for name in all_pages(report_site):
        page.goto((report_site.folder / name).as_uri())
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_long_formula_scrolls_in_its_box_and_has_the_colour_of_the_text(scheme, open_report):
    pytest.importorskip("docutils.utils.math.latex2mathml")
    page = open_report("01_prepare_data.html", viewport=PHONE, color_scheme=scheme)
    page.wait_for_function("document.querySelector('.formula').classList.contains('more')")
    short, long = page.locator("math").all()
    assert short.bounding_box()["height"] < 40 < PHONE["width"] < long.bounding_box()["width"]
    assert page.locator(".formula").bounding_box()["width"] <= PHONE["width"]
    assert page.locator(".formula").evaluate("(box) => box.scrollHeight <= box.clientHeight")
    colours = {
        page.evaluate(f"getComputedStyle(document.querySelector('{tag}')).color")
        for tag in ("math", ".notebook p")
    }
    assert len(colours) == 1


def test_a_table_that_goes_on_fades_out_until_its_end_is_reached(open_report):
    page = open_report("index.html", viewport=PHONE)
    table = page.locator(".scroll").first
    page.wait_for_function("document.querySelector('.scroll').classList.contains('more')")
    table.evaluate("(box) => { box.scrollLeft = box.scrollWidth }")
    page.wait_for_function("!document.querySelector('.scroll').classList.contains('more')")
    page.set_viewport_size({"width": 2400, "height": 900})
    page.wait_for_function("document.querySelectorAll('.scroll.more').length === 0")


CONTRAST = """(selector) => {
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const text = light(getComputedStyle(document.querySelector(selector)).color);
  const page = light(getComputedStyle(document.body).backgroundColor);
  return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
}"""


def test_dark_and_light_differ_and_both_are_readable(open_report):
    backgrounds = []
    for scheme in ("light", "dark"):
        page = open_report(color_scheme=scheme)
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for selector, least in (("h1", 7), (".lead", 4.5), ("main a", 4.5), (".hint", 4.5)):
            assert page.evaluate(CONTRAST, selector) >= least, (scheme, selector)
    assert backgrounds[0] != backgrounds[1]


def test_a_lost_file_is_named_in_place_of_its_matches(browser, report_site, tmp_path):
    shutil.copytree(report_site.folder, tmp_path / "site")
    (tmp_path / "site" / "matches" / "pair00.js").unlink()
    page = browser.new_page()
    page.goto((tmp_path / "site" / "matches.html").as_uri() + "#pair=i_astronaut 1-2")
    page.wait_for_selector("#failure:not([hidden])")
    assert "matches/pair00.js is missing" in page.inner_text("#failure")
    page.click("#next")
    page.wait_for_selector("#failure", state="hidden")
    page.close()
