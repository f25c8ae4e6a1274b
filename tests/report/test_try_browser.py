"""The page "Try it" in a real browser: the numbers of Python, and whatever is clicked, typed, dropped."""

from __future__ import annotations

import base64
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from kp2d import images
from kp2d.data import scenes
from kp2d.methods import learned, registration, runtimes, weights
from kp2d.report import tryit

PHONE = {"width": 390, "height": 844}
SIZES = ((240, 320), (240, 320), (320, 200))  # (height, width): the model's own, and another
TOP_K = 1000

RUN = """async ({ network, build, pictures, sizes, k }) => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const text = (heads) => Object.fromEntries(Object.entries(heads).map(([name, values]) => {
    let letters = "";
    new Uint8Array(values.buffer).forEach((value) => { letters += String.fromCharCode(value); });
    return [name, btoa(letters)];
  }));
  const { script, wasm } = await kp2d.engine.fetched("litert", build);
  (0, eval)(script);
  const runtime = await kp2d.tensor.start(ModuleFactory, wasm);
  const model = await kp2d.engine.fetched("networks", network);
  const heads = [];
  for (const [index, picture] of pictures.entries()) {
    const opened = await kp2d.tensor.open(runtime, model, sizes[index]);
    heads.push(await kp2d.tensor.run(runtime, opened, bytes(picture)));
  }
  const features = heads.map((each, index) => kp2d.decode.decode(each, model, sizes[index], { k, score: 0 }));
  const pairs = [[0, 1], [1, 2], [2, 0]].map(([a, b]) =>
    [...kp2d.match.mutual(features[a].descriptors, features[b].descriptors, model.dim).matches]);
  return [heads.map(text), features.map(({ keypoints, scores }) => [[...keypoints], [...scores]]), pairs];
}"""


@pytest.fixture(scope="module")
def photographs():
    """A photograph, the same from another side, and another one."""
    china, astronaut = (scenes.photograph(name) for name in ("china", "astronaut"))
    first = images.resize_image(china, SIZES[0])
    turned = np.array([[0.9, -0.12, 20.0], [0.1, 0.95, -8.0], [1e-4, 2e-4, 1.0]])
    return [
        first,
        cv2.warpPerspective(first, turned, SIZES[1][::-1]),
        images.resize_image(astronaut, SIZES[2]),
    ]


@pytest.mark.parametrize(
    ("name", "build"),
    [("kp2d_tiny_s", "litert"), ("kp2d_nano", "litert"), ("kp2d_nano", "litert_compat")],
)
def test_the_browser_computes_what_python_does(browser, trial_address, photographs, name, build):
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(f"{trial_address}index.html")
    for script in ("decode.js", "match.js"):
        page.add_script_tag(path=tryit.ASSETS / script)
    values = {
        "network": name,
        "build": build,
        "pictures": [base64.b64encode(picture.tobytes()).decode() for picture in photographs],
        "sizes": SIZES,
        "k": TOP_K,
    }
    heads, features, pairs = page.evaluate(RUN, values)
    context.close()
    model = runtimes.TFLiteModel(weights.shipped_path(name, "int8"))
    network = learned.load(name, precision="int8")
    expected = []
    for picture, found, (keypoints, scores) in zip(photographs, heads, features, strict=True):
        for head, values in model.raw_heads(picture[None]).items():
            assert (np.frombuffer(base64.b64decode(found[head]), np.int8) == values.ravel()).all(), head
        expected.append(network.extract(picture).take(slice(TOP_K)))
        assert keypoints == expected[-1].keypoints.ravel().tolist()
        assert scores == expected[-1].scores.tolist() and len(scores) == TOP_K
    for (a, b), matches in zip(((0, 1), (1, 2), (2, 0)), pairs, strict=True):
        found = np.reshape(matches, (-1, 2)).tolist()
        assert found == registration.match_features(expected[a], expected[b]).tolist() and len(found) > 50


# The page


@pytest.fixture
def open_trial(open_page, trial_address):
    """A function (address, options of the context) -> the page once all is computed; served, by default."""

    def open_trial(address=f"{trial_address}index.html", **options):
        page = open_page(address, **options)
        ready(page)
        return page

    return open_trial


def ready(page) -> str:
    """Waits until all is computed; returns what the page says of it."""
    page.wait_for_selector("#stage[aria-busy=false]")
    return page.inner_text("#verdict")


def count(page, name: str) -> list[float]:
    ready(page)
    return [float(number) for number in re.findall(r"[\d.]+", page.inner_text(f"#count_{name}"))]


def choose(page, slot: int, *paths):
    page.set_input_files(f"#file{slot}", [str(path) for path in paths])
    page.wait_for_function(
        "([slot, name]) => document.getElementById(`name${slot}`).textContent === name",
        arg=[slot, paths[0].name],
    )
    ready(page)


def saved_matches(page) -> dict:
    with page.expect_download() as saved:
        page.click("#save_matches")
    assert saved.value.suggested_filename == "kp2d-matches.json"
    return json.loads(saved.value.path().read_text())


@pytest.fixture(scope="module")
def two_pictures(photographs, tmp_path_factory):
    """Files of two pictures of one thing, larger than a network sees them, and of different shapes."""
    folder = tmp_path_factory.mktemp("own")
    large = cv2.resize(photographs[0], (900, 675), interpolation=cv2.INTER_CUBIC)
    images.write_image(folder / "whole.png", large)
    images.write_image(folder / "part.jpg", np.ascontiguousarray(large[60:600, 250:650]))
    return folder / "part.jpg", folder / "whole.png"


def test_a_sample_is_matched_at_once_and_the_outline_drawn(open_trial):
    page = open_trial()
    assert "agree on one homography" in ready(page)
    assert count(page, "keypoints") == [1000, 1000]
    right, share = count(page, "agree")
    assert share > 60 and share == round(100 * right / count(page, "matches")[0])
    assert "agree on one homography" in page.get_attribute("#stage", "aria-label")
    assert page.locator(".sample[aria-pressed=true]").count() == 1
    for part in ("network", "decoding", "matching", "estimating"):
        assert all(value > 0 for value in count(page, part))


def test_the_page_works_as_a_file_too(open_trial, trial_site):
    assert "agree on one homography" in ready(open_trial(trial_site.index.as_uri()))


def test_own_pictures_are_found_in_each_other(open_trial, two_pictures):
    page = open_trial()
    choose(page, 0, *two_pictures)
    assert page.inner_text("#name1") == "whole.png"
    assert page.locator(".sample[aria-pressed=true]").count() == 0
    assert "agree on one homography" in ready(page)
    record = saved_matches(page)
    assert record["trustworthy"]
    assert [picture["width"] for picture in record["pictures"]] == [400, 900]
    assert record["settings"]["seen"] == [[320, 236], [240, 320]]
    homography = np.array(record["homography"])  # it shifts by (250, 60) px
    np.testing.assert_allclose(homography, [[1, 0, 250], [0, 1, 60], [0, 0, 1]], atol=3)
    inliers = [match for match in record["matches"] if match["inlier"]]
    shifts = np.array([match["point1"] for match in inliers]) - [match["point0"] for match in inliers]
    assert np.abs(np.median(shifts, axis=0) - [250, 60]).max() < 2
    assert count(page, "agree")[0] == len(inliers)
    page.click("#swap")
    assert "agree" in ready(page) and page.inner_text("#name0") == "whole.png"


def test_what_is_saved_is_what_python_matches(open_trial, photographs, tmp_path):
    network = learned.load("kp2d_tiny_s", precision="int8")
    features, paths = [], [tmp_path / "first.png", tmp_path / "second.png"]
    for path, picture in zip(paths, photographs, strict=False):
        images.write_image(path, picture)
        features.append(registration.textured(network.extract(picture), picture).take(slice(TOP_K)))
    page = open_trial()
    choose(page, 0, *paths)
    found = saved_matches(page)["matches"]
    matches = registration.match_features(*features)
    for side in (0, 1):
        keypoints = features[side].keypoints[matches[:, side]]
        assert len(found) == len(matches)
        np.testing.assert_allclose([match[f"point{side}"] for match in found], keypoints, atol=6e-4)
        scores = features[side].scores[matches[:, side]]
        np.testing.assert_allclose([match[f"score{side}"] for match in found], scores, atol=1e-6)


def test_a_saved_picture_shows_both_and_the_lines(open_trial, tmp_path):
    page = open_trial()
    with page.expect_download() as saved:
        page.click("#save_picture")
    saved.value.save_as(tmp_path / "matches.png")
    picture = images.read_image(tmp_path / "matches.png")
    assert picture.shape[1] == 1600 and 500 < picture.shape[0] < 800
    cyan = (np.abs(picture.astype(int) - [0x19, 0xD3, 0xE6]) < 12).all(axis=-1)
    assert cyan.mean() > 0.005


def test_the_match_that_is_pointed_at_stands_out(open_trial):
    page = open_trial()
    x, y = saved_matches(page)["matches"][0]["point0"]
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    scale = (box["width"] - 12) / 2 / 480
    drawn = page.evaluate("document.getElementById('stage').toDataURL()")
    page.mouse.move(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale)
    assert page.evaluate("document.getElementById('stage').toDataURL()") != drawn
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 40)
    assert page.evaluate("document.getElementById('stage').toDataURL()") == drawn


def drag(page, slider: str, end: float):
    page.locator(slider).scroll_into_view_if_needed()
    box = page.locator(slider).bounding_box()
    page.mouse.click(box["x"] + end * box["width"], box["y"] + box["height"] / 2)


def test_sliders_and_choices_change_what_is_found(open_trial):
    page = open_trial()
    before = count(page, "matches")
    drag(page, "#ratio", 0.5)
    fewer = count(page, "matches")
    assert fewer < before and page.inner_text("#ratio_text").startswith("below 0.8")
    drag(page, "#k", 0.1)
    k = int(page.inner_text("#k_text"))
    assert count(page, "keypoints") == [k, k] and 50 < k < 500
    for slider in ("#k", "#score"):
        page.locator(slider).focus()
        page.keyboard.press("End")
    assert max(count(page, "keypoints")) < 2000 and page.inner_text("#score_text") == "above 0.99"
    drag(page, "#score", 0.0)
    page.get_by_text("kp2d_nano", exact=True).click()
    assert count(page, "keypoints") == [2000, 2000] and page.inner_text("#network_text") == "0.15 MB"
    page.get_by_text("480", exact=True).click()
    assert "homography" in ready(page)
    page.check("#points")
    page.select_option("#lines", "all")


def test_quarter_turns_are_offered_where_descriptors_steer_only(open_trial, trial_site, tmp_path):
    page = open_trial()
    assert page.locator("#vote").is_hidden() == ('"steered": false' in trial_site.index.read_text())
    shutil.copytree(trial_site.folder, tmp_path / "site")
    for name in ("index.html", "try/kp2d_tiny_s.js"):
        path = tmp_path / "site" / name
        path.write_text(re.sub(r'"steered":( ?)false', r'"steered":\1true', path.read_text(encoding="utf-8")))
    page = open_trial((tmp_path / "site" / "index.html").as_uri())
    assert "agree on one homography" in ready(page) and page.is_checked("#vote")
    page.uncheck("#vote")
    assert "agree on one homography" in ready(page) and not saved_matches(page)["settings"]["vote"]


def test_the_keyboard_is_enough(open_trial):
    page = open_trial()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.sample"))
    wanted = [*tryit.SAMPLES, "file0", "camera0", "swap", "file1", "camera1", "lines"]
    assert [name for name in dict.fromkeys(seen) if name in wanted] == wanted, "in the order of the page"
    page.focus(".sample[data-sample=coffee]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".sample[data-sample=coffee][aria-pressed=true]")
    assert "Cup of coffee" in page.inner_text("#name0") and "agree" in ready(page)
    page.focus("#networks input:checked")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#network_text") == "0.15 MB"
    page.focus("#ratio")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#ratio_text") == "below 0.99"


def test_controls_have_names_for_those_who_cannot_see(open_trial):
    page = open_trial()
    for name in ("Choose the first picture", "Choose the second picture"):
        assert page.get_by_label(name, exact=True).count() == 1
    for name in ("First picture", "Second picture", "Sample pairs"):
        assert page.get_by_role("group", name=name).count() == 1
    for name in ("Keypoints a picture, k", "Score", "Ratio to the second nearest"):
        assert page.get_by_role("slider", name=name).count() == 1
    assert page.get_by_role("radio", name="kp2d_nano").count() == 1
    assert page.inner_text("#status") == page.inner_text("#verdict")
    assert page.locator("h1").count() == 1


def drop(page, selector: str, *paths):
    """Drops files where an element is, as the browser would."""
    page.evaluate(
        """([selector, files]) => {
          const data = new DataTransfer();
          for (const [name, text] of files) {
            data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
          }
          const box = document.querySelector(selector).getBoundingClientRect();
          const at = { clientX: box.left + box.width * 0.75, clientY: box.top + box.height * 0.25 };
          const options = { dataTransfer: data, bubbles: true, cancelable: true, ...at };
          for (const kind of ["dragover", "drop"]) {
            document.querySelector(selector).dispatchEvent(new DragEvent(kind, options));
          }
        }""",
        [selector, [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]],
    )
    page.wait_for_function("(name) => document.body.textContent.includes(name)", arg=paths[-1].name)
    ready(page)


def test_a_picture_is_dropped_where_it_belongs_and_what_is_none_is_refused(
    open_trial, two_pictures, tmp_path
):
    page = open_trial()
    drop(page, "#stage", two_pictures[1])  # on its right half
    assert page.inner_text("#name1") == "whole.png" and "Temple" in page.inner_text("#name0")
    drop(page, ".slot[data-slot='0']", two_pictures[0])
    assert page.inner_text("#name0") == "part.jpg"
    verdict, found = ready(page), saved_matches(page)
    (tmp_path / "words.png").write_text("no picture")
    for files in ([tmp_path / "words.png"], [two_pictures[1], tmp_path / "words.png"]):
        drop(page, "#stage", *files)
        assert "words.png cannot be shown: it is no picture" in page.inner_text("#failure")
        assert ready(page) == verdict and page.inner_text("#name0") == "part.jpg", "what was there stays"
        assert saved_matches(page) == found
    images.write_image(tmp_path / "dot.png", np.zeros((20, 20, 3), np.uint8))
    drop(page, "#stage", tmp_path / "dot.png")
    assert "smaller than 32 pixels" in page.inner_text("#failure")


def test_what_is_transparent_is_white_as_in_python(open_trial, photographs, tmp_path):
    alpha = np.full((*SIZES[0], 1), 255, np.uint8)
    alpha[:, :100] = 0
    cv2.imwrite(str(tmp_path / "cut.png"), np.dstack([photographs[0], alpha]))
    page = open_trial()
    pixels = page.evaluate(
        """async (content) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const { canvas } = await kp2d.picture.read(new Blob([bytes]));
          return [...kp2d.picture.pixelsOf(canvas)];
        }""",
        base64.b64encode((tmp_path / "cut.png").read_bytes()).decode(),
    )
    read = np.reshape(pixels, (*SIZES[0], 4))[..., :3]
    np.testing.assert_array_equal(read, images.read_image(tmp_path / "cut.png"))


def test_an_empty_wall_gives_no_outline_and_says_so(open_trial, tmp_path):
    images.write_image(tmp_path / "wall.png", np.full((240, 320, 3), 128, np.uint8))
    page = open_trial()
    choose(page, 1, tmp_path / "wall.png")
    assert "No homography can be trusted" in ready(page)


def test_the_camera_is_followed_until_it_is_frozen(open_trial):
    page = open_trial(permissions=["camera"])
    sample = ready(page)
    page.click("#camera1")
    page.wait_for_function("() => document.getElementById('name1').textContent === 'camera'")
    assert page.inner_text("#camera1") == "Freeze"
    page.wait_for_function("(old) => document.getElementById('verdict').textContent !== old", arg=sample)
    drawn = page.evaluate("document.getElementById('stage').toDataURL()")
    page.wait_for_function("(old) => document.getElementById('stage').toDataURL() !== old", arg=drawn)
    page.click("#camera1")
    assert (
        page.inner_text("#camera1") == "Camera" and page.get_attribute("#camera1", "aria-pressed") == "false"
    )
    ready(page)


def test_the_browser_lets_the_page_send_nothing(browser, trial_address):
    page = browser.new_page()
    page.goto(f"{trial_address}index.html")
    assert page.evaluate("fetch('icon.svg').then(() => false, () => true)")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(open_trial, scheme):
    page = open_trial(viewport=PHONE, has_touch=True, color_scheme=scheme)
    assert "agree" in ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    box = page.locator("#stage").bounding_box()
    assert box["height"] > box["width"], "one picture below the other"
    page.tap(".sample[data-sample=astronaut]")
    page.wait_for_selector(".sample[data-sample=astronaut][aria-pressed=true]")
    assert "homography" in ready(page)
    for control in ("#file0 + *, .slot .button", "#save_picture"):
        assert page.locator(control).first.bounding_box()["height"] >= 30, "as large as a finger"


def test_a_lost_script_is_named(browser, trial_site, tmp_path):
    shutil.copytree(trial_site.folder, tmp_path / "site")
    (tmp_path / "site" / "try" / "kp2d_tiny_s.js").unlink()
    page = browser.new_page()
    page.goto((tmp_path / "site" / "index.html").as_uri())
    page.wait_for_selector("#failure:not([hidden])")
    assert "try/kp2d_tiny_s.js is missing" in page.inner_text("#failure")
    page.get_by_text("kp2d_nano", exact=True).click()
    page.wait_for_selector("#failure", state="hidden")
    assert "agree" in ready(page)
    page.get_by_text("kp2d_tiny_s", exact=True).click()
    page.wait_for_selector("#failure:not([hidden])")
    page.get_by_text("kp2d_nano", exact=True).click()
    page.wait_for_selector("#failure", state="hidden")
    page.close()
