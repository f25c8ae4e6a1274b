"""Our methods behind the interfaces of OpenCV, LightGlue and hloc."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import kp2d
from kp2d import checks
from kp2d.export import adapters


@pytest.mark.parametrize("method", ["kp2d_nano:int8", "sift", "orb"])
def test_a_feature2d_finds_and_matches_as_opencv_s(method, textured):
    image, finder = textured((97, 130), seed=2), adapters.Feature2D(method, top_k=60)
    points, descriptors = finder.detectAndCompute(image, None)
    assert 20 < len(points) == len(descriptors) <= 60
    assert descriptors.shape[1] == finder.descriptorSize() and not finder.empty()
    assert finder.descriptorType() == (cv2.CV_8U if method == "orb" else cv2.CV_32F)
    matches = cv2.BFMatcher(finder.defaultNorm(), crossCheck=True).match(descriptors, descriptors)
    assert all(match.queryIdx == match.trainIdx or match.distance == 0 for match in matches)
    drawn = cv2.drawKeypoints(image, points, None)
    assert drawn.shape == image.shape and points[0].response >= points[-1].response
    assert cv2.KeyPoint.convert(finder.detect(image)).tolist() == cv2.KeyPoint.convert(points).tolist()
    assert finder.getDefaultName().startswith("kp2d.")


def test_a_mask_and_a_gray_image_are_understood(textured):
    image = textured((96, 128), seed=2)
    mask = np.zeros((96, 128), np.uint8)
    mask[:, 64:] = 255
    points = adapters.Feature2D("orb").detect(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), mask)
    assert points and min(point.pt[0] for point in points) >= 63
    with pytest.raises(checks.InputError, match="mask"):
        adapters.Feature2D("orb").detect(image, mask[:50])


def test_lightglue_gets_a_batch_of_one(textured):
    features = kp2d.load("kp2d_nano:int8").extract(textured((96, 128)))
    batch = adapters.lightglue(features, (96, 128))
    assert batch["image_size"].tolist() == [[128, 96]]
    np.testing.assert_array_equal(batch["keypoints"][0], features.keypoints)
    assert batch["descriptors"].shape == (1, len(features), 32)
    assert batch["keypoint_scores"].shape == (1, len(features))


def test_hloc_gets_descriptors_in_columns(textured):
    extractor, image = kp2d.load("kp2d_nano:int8"), textured((97, 130))
    tensor = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    prediction = adapters.hloc(tensor, extractor, top_k=40)
    assert {name: values.shape for name, values in prediction.items()} == {
        "keypoints": (1, 40, 2),
        "scores": (1, 40),
        "descriptors": (1, 32, 40),
    }
    with pytest.raises(checks.InputError, match="grayscale"):
        adapters.hloc(tensor[:, :1], extractor)
    assert adapters.hloc_configuration()["model"]["method"] == "kp2d_tiny_s:int8"
