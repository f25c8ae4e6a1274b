"""kp2d match: any two images, and what is said of their homography."""

import cv2
import numpy as np
import pytest

from kp2d import images

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def pair(tmp_path):
    image = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 255, (150, 200, 3), np.uint8), (9, 9), 0)
    matrix = np.array([[0.95, 0.1, 3], [-0.1, 0.95, 12], [0, 0, 1.0]])
    images.write_image(tmp_path / "a.png", image)
    images.write_image(tmp_path / "b.png", cv2.warpPerspective(image, matrix, (180, 160)))
    return tmp_path / "a.png", tmp_path / "b.png"


@pytest.mark.parametrize("extra", [[], ["--image-size", "96x128"], ["--method", "orb", "--top-k", "100"]])
def test_match_draws_any_two_images(pair, tmp_path, extra, command):
    code, out, _ = command("match", *pair, "-o", tmp_path / "out.png", *extra)
    assert code == 0
    assert "homography found" in out
    assert images.read_image(tmp_path / "out.png").shape[1] > 900


def test_match_never_writes_over_a_picture_that_it_reads(pair, command):
    before = pair[0].read_bytes()
    code, _, err = command("match", *pair, "-o", pair[0])
    assert code == 2 and "an --output other than what is read" in err
    assert pair[0].read_bytes() == before


def test_match_of_blank_images_says_so(tmp_path, command):
    images.write_image(tmp_path / "blank.png", np.full((50, 60, 3), 9, np.uint8))
    code, out, _ = command("match", tmp_path / "blank.png", tmp_path / "blank.png", "-o", tmp_path / "o.png")
    assert code == 0
    assert "no homography" in out
    assert (tmp_path / "o.png").exists()


def test_a_homography_from_a_handful_of_matches_is_not_praised(tmp_path, pair, command):
    code, out, _ = command("match", *pair, "-o", tmp_path / "out.png", "--top-k", 5)
    assert code == 0 and ("not to be trusted" in out or "no homography" in out)
    _, out, _ = command("match", *pair, "-o", tmp_path / "out.png", "--top-k", 300)
    assert out.count("homography found") == 1
