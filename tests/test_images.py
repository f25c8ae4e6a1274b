"""Pictures: every format becomes uint8 RGB, and what is no complete picture is refused by name."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from kp2d import checks, images


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colour picture with H != W, uint8 `[40, 64, 3]` RGB."""
    y, x = np.mgrid[0:40, 0:64]
    return np.stack([x * 4, y * 6, 255 - x * 2], axis=-1).astype(np.uint8)


def test_png_and_ppm_come_back_unchanged(tmp_path, picture):
    for name in ("a.png", "b.ppm", "C.PNG"):
        path = images.write_image(tmp_path / "new folder" / name, picture)
        assert np.array_equal(images.read_image(path), picture)
    assert not list((tmp_path / "new folder").glob(".*")), "no temporary file is left"


def test_jpeg_comes_back_nearly_unchanged_under_a_unicode_name(tmp_path, picture):
    path = images.write_image(tmp_path / "Brücke 橋.jpg", picture)
    assert np.abs(images.read_image(path).astype(int) - picture).max() <= 12


def test_gray_alpha_and_16_bits_are_converted(tmp_path, picture):
    gray = picture[..., 0]
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    assert np.array_equal(images.read_image(tmp_path / "gray.png"), np.dstack([gray] * 3))
    rgba = np.dstack([picture[..., ::-1], np.zeros_like(gray)])
    cv2.imwrite(str(tmp_path / "rgba.png"), rgba)
    assert np.array_equal(images.read_image(tmp_path / "rgba.png"), picture)
    values = np.tile(np.array([0, 128, 129, 257, 65407, 65535, 1000, 5], np.uint16), (8, 1))
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(images.read_image(tmp_path / "deep.png")[..., 1], expected)


def test_exif_orientation_is_applied(tmp_path, picture):
    content = cv2.imencode(".jpg", picture)[1].tobytes()
    # One entry, tag 0x112 = 6: turn by 90 degrees clockwise.
    exif = b"Exif\0\0" + b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    marker = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "turned.jpg").write_bytes(content[:2] + marker + content[2:])
    assert images.read_image(tmp_path / "turned.jpg").shape == (64, 40, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".ppm", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_truncated_pictures_are_refused(tmp_path, picture, suffix, kept):
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    content = cv2.imencode(suffix, noisy)[1].tobytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content)
    images.read_image(path)
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(checks.InputError, match=path.name):
        images.read_image(path)


def test_truncated_jpeg_with_a_thumbnail_is_refused(tmp_path, picture):
    noisy = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    content = cv2.imencode(".jpg", noisy)[1].tobytes()
    thumbnail = cv2.imencode(".jpg", noisy[:16, :16])[1].tobytes()
    marker = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = content[:2] + marker + content[2:]
    path = tmp_path / "thumbnail.jpg"
    path.write_bytes(whole)
    assert images.read_image(path).shape == (64, 96, 3)
    path.write_bytes(whole[:-200])
    with pytest.raises(checks.InputError, match="cut off"):
        images.read_image(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_with_its_directory_first_and_strips_missing_is_refused(tmp_path, order):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8).tobytes()
    rows, data = 8, 8 + 2 + 12 * 8 + 4 + 32
    starts = [data + rows * 32 * strip for strip in range(4)]
    fields = [(256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    fields += [(273, 4, 4, data - 32), (278, 3, 1, rows), (279, 4, 4, data - 16)]
    content = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    content += struct.pack(f"{order}H", len(fields))
    for tag, kind, count, value in fields:
        short = kind == 3
        content += struct.pack(
            f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, value, *[0] * short
        )
    content += struct.pack(f"{order}I4I4I", 0, *starts, *[rows * 32] * 4) + pixels
    path = tmp_path / "first.tif"
    path.write_bytes(content)
    assert images.read_image(path)[..., 0].tobytes() == pixels
    path.write_bytes(content[:-300])
    with pytest.raises(checks.InputError, match="cut off"):
        images.read_image(path)


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture at all, only words" * 10)
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "float.tif"), np.full((16, 16, 3), -1, np.float32))
    for name, said in [
        ("missing.png", "does not exist"),
        ("", "folder"),
        ("empty.png", "empty"),
        ("text.png", "damaged"),
        ("dot.png", "1x1 px"),
        ("float.tif", "float32"),
    ]:
        with pytest.raises(checks.InputError, match=said) as error:
            images.read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_opencv_log_level_is_restored(tmp_path):
    before = images._log.getLogLevel()
    (tmp_path / "text.png").write_text("words")
    with pytest.raises(checks.InputError):
        images.read_image(tmp_path / "text.png")
    assert images._log.getLogLevel() == before


def test_write_refuses_other_suffixes_arrays_and_places(tmp_path, picture):
    with pytest.raises(checks.InputError, match="ending in"):
        images.write_image(tmp_path / "a.gif", picture)
    with pytest.raises(checks.InputError, match="uint8"):
        images.write_image(tmp_path / "a.png", picture.astype(np.float32))
    (tmp_path / "file").touch()
    with pytest.raises(checks.InputError, match="file"):
        images.write_image(tmp_path / "file" / "a.png", picture)


def test_resize_respects_pixel_centres_and_keeps_equal_sizes(picture):
    assert images.resize_image(picture, (40, 64)) is picture
    smaller = images.resize_image(picture, (20, 32))
    blocks = picture.reshape(20, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(smaller - blocks).max() <= 0.5
    ramp = np.tile((np.arange(16) * 10).astype(np.uint8)[None, :, None], (16, 1, 3))
    larger = images.resize_image(ramp, (16, 32))
    # x' = 2 (x + 1/2) - 1/2, away from the edges.
    assert np.abs(larger[0, 4:28, 0] - ((np.arange(4, 28) + 0.5) / 2 - 0.5) * 10).max() <= 0.5
    with pytest.raises(checks.InputError, match="8x8"):
        images.resize_image(picture, (4, 64))


def test_a_jpeg_may_have_a_thumbnail_and_a_trailer_but_must_end(tmp_path):
    noise = np.random.default_rng(2).integers(0, 255, (64, 80, 3), np.uint8)
    for progressive in (0, 1):
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
        whole = cv2.imencode(".jpg", noise, options)[1].tobytes()
        trailer = np.random.default_rng(3).bytes(200_000) + b"\xff\xda\x00"
        (tmp_path / "a.jpg").write_bytes(whole + trailer)
        assert images.read_image(tmp_path / "a.jpg").shape == (64, 80, 3)
        thumbnail = b"\xff\xe1" + (len(whole) + 2).to_bytes(2, "big") + whole
        cut = whole[:2] + thumbnail + whole[2:-200]
        (tmp_path / "a.jpg").write_bytes(cut)
        with pytest.raises(checks.InputError):
            images.read_image(tmp_path / "a.jpg")


def _encoded(picture: np.ndarray, kind: str, **options) -> bytes:
    """A picture as Pillow writes it."""
    import io

    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(picture).save(target, kind, **options)
    return target.getvalue()


@pytest.fixture
def assumptions(monkeypatch):
    """What was assumed to read pictures, as the messages of the log."""
    messages: list[str] = []
    monkeypatch.setattr(checks, "_assumed", set())
    monkeypatch.setattr(checks.log, "warning", lambda text, *values: messages.append(text % values))
    return messages


@pytest.mark.parametrize("restarts", [0, 1])
@pytest.mark.parametrize("padding", [b"", b"\0" * 40])
@pytest.mark.parametrize("size", [(64, 80), (61, 83), (8, 8)])
def test_a_jpeg_without_its_end_mark_is_read_if_all_pixels_are_there(
    tmp_path, assumptions, restarts, padding, size
):
    noise = np.random.default_rng(2).integers(0, 255, (*size, 3), np.uint8)
    whole = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_RST_INTERVAL, restarts])[1].tobytes()
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "camera.jpg").write_bytes(whole[:-2] + padding)
    expected = images.read_image(tmp_path / "whole.jpg")
    assert not assumptions
    assert np.array_equal(images.read_image(tmp_path / "camera.jpg"), expected)
    assert len(assumptions) == 1 and "camera.jpg" in assumptions[0] and "end mark" in assumptions[0]
    for missing in (6, 12, len(whole) // 5):
        (tmp_path / "cut.jpg").write_bytes(whole[:-missing])
        with pytest.raises(checks.InputError, match="cut off"):
            images.read_image(tmp_path / "cut.jpg")


def test_netpbm_may_lack_a_last_line_end_and_declare_its_own_white(tmp_path, picture, assumptions):
    numbers = " ".join(map(str, picture.ravel()))
    (tmp_path / "a.ppm").write_text(f"P3\n# made by hand\n64 40\n255\n{numbers}")
    assert np.array_equal(images.read_image(tmp_path / "a.ppm"), picture)
    tens = np.arange(64).reshape(8, 8) * 16
    expected = np.rint(tens * 255 / 1023).astype(np.uint8)
    (tmp_path / "p2.pgm").write_text("P2\n8 8\n1023\n" + " ".join(map(str, tens.ravel())))
    (tmp_path / "p5.pgm").write_bytes(b"P5 8 8 1023\n" + tens.astype(">u2").tobytes())
    (tmp_path / "p5_15.pgm").write_bytes(b"P5 8 8 15\n" + (tens // 64).astype(np.uint8).tobytes())
    for name in ("p2.pgm", "p5.pgm"):
        assert np.array_equal(images.read_image(tmp_path / name)[..., 1], expected), name
    assert np.array_equal(images.read_image(tmp_path / "p5_15.pgm")[..., 1], (tens // 64) * 17)
    assert not assumptions, "the file says it all"


@pytest.mark.parametrize(
    ("kind", "white"),
    [
        *[(np.float32, white) for white in (1, 255, 65535)],
        *[(np.uint16, white) for white in (255, 1023, 4095, 16383)],
        *[(np.float64, 1), (np.int16, 4095)],
    ],
)
def test_the_white_of_other_types_is_found_and_said(tmp_path, picture, assumptions, kind, white):
    values = picture / 255 * white
    path = tmp_path / "measured.tif"
    cv2.imwrite(
        str(path), (values if kind in (np.float32, np.float64) else np.rint(values)).astype(kind)[..., ::-1]
    )
    assert np.abs(images.read_image(path).astype(int) - picture).max() <= 1
    assert len(assumptions) == 1 and f"white is {white}" in assumptions[0] and str(path) in assumptions[0]


@pytest.mark.parametrize("values", [(-1, 1), (0, 7), (0, np.nan), (0, 1e6)])
def test_values_without_a_known_white_are_refused(tmp_path, picture, values):
    spread = np.interp(picture, (0, 255), values).astype(np.float32)
    cv2.imwrite(str(tmp_path / "values.tif"), spread)
    with pytest.raises(checks.InputError, match=r"float32 values.*values\.tif"):
        images.read_image(tmp_path / "values.tif")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_what_transparency_hides_is_no_part_of_a_picture(tmp_path, picture, assumptions, kind):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    path = tmp_path / "cut out.png"
    path.write_bytes(_encoded(np.dstack([picture, alpha]), kind, lossless=True))
    assert np.array_equal(images.read_image(path), picture)
    assert not assumptions
    alpha[:, :16] = 0
    alpha[:, 16:20] = 100
    path.write_bytes(_encoded(np.dstack([picture, alpha]), kind, lossless=True, exact=True))
    image = images.read_image(path)
    assert (image[:, :16] == 255).all() and np.array_equal(image[:, 16:], picture[:, 16:])
    assert len(assumptions) == 1 and "25%" in assumptions[0] and "white" in assumptions[0]
    path.write_bytes(_encoded(np.dstack([picture, 0 * alpha]), kind, lossless=True, exact=True))
    assert np.array_equal(images.read_image(path), picture), "transparency was not meant"


@pytest.mark.parametrize("suffix", [".tif", ".pfm"])
def test_gray_floats_are_repeated_in_three_channels(tmp_path, picture, assumptions, suffix):
    path = tmp_path / f"depth{suffix}"
    cv2.imwrite(str(path), picture[..., 0].astype(np.float32) / 255)
    assert np.array_equal(images.read_image(path), np.repeat(picture[..., :1], 3, axis=2))
    assert len(assumptions) == 1 and "white is 1" in assumptions[0]


@pytest.mark.parametrize(
    ("head", "channels"),
    [
        (b"P7\nWIDTH 64\nHEIGHT 40\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n", 3),
        (b"P7\nWIDTH 64\nHEIGHT 40\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n", 1),
        (b"P6\r\n64 40\r\n255\r\n", 3),
        (b"P5\r\n64 40\r\n255\r\n", 1),
    ],
)
def test_rare_headers_of_netpbm_neither_swap_colours_nor_shift_pixels(tmp_path, picture, head, channels):
    path = tmp_path / "rare.ppm"
    path.write_bytes(head + picture[..., :channels].tobytes())
    assert np.array_equal(images.read_image(path), np.broadcast_to(picture[..., :channels], picture.shape))


def test_a_pam_with_alpha_is_refused_by_name(tmp_path):
    path = tmp_path / "a.pam"
    path.write_bytes(b"P7\nWIDTH 9\nHEIGHT 9\nDEPTH 4\nMAXVAL 255\nENDHDR\n" + bytes(324))
    with pytest.raises(checks.InputError, match="PAM"):
        images.read_image(path)


def test_a_limit_of_the_environment_is_named(tmp_path, picture):
    images.write_image(tmp_path / "a.png", picture)
    script = "import sys; from kp2d import images; images.read_image(sys.argv[1])"
    setting = {"OPENCV_IO_MAX_IMAGE_PIXELS": "100"}
    command = [sys.executable, "-c", script, str(tmp_path / "a.png")]
    told = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, text=True).stderr
    assert "Unset OPENCV_IO_MAX_IMAGE_PIXELS" in told


def test_the_first_of_several_pictures_is_meant(tmp_path, picture, assumptions):
    from PIL import Image

    others = [Image.fromarray(picture[::-1]), Image.fromarray(picture[:, ::-1])]
    for name, kind in (("a.png", "PNG"), ("b.tif", "TIFF"), ("c.webp", "WEBP")):
        content = _encoded(picture, kind, save_all=True, append_images=others, lossless=True)
        (tmp_path / name).write_bytes(content)
        assert np.abs(images.read_image(tmp_path / name).astype(int) - picture).max() <= 2
        assert name in assumptions[-1] and "the first is meant" in assumptions[-1]
    assert len(assumptions) == 3


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photograph", "JPEG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video", "frame"),
        (b"%PDF-1.7 words", "a PDF document", "Export"),
        (b"<!DOCTYPE html><html>404</html>", "a web page", "Download"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS", "git lfs pull"),
        (b'<?xml version="1.0"?>\n<svg width="9">', "an SVG drawing", "Export"),
        (b"\x93NUMPY\x01\0v\0", "a NumPy array", "write_image"),
        (b"\0" * 128 + b"DICM\2\0", "a DICOM file", "Export"),
        (b"8BPS\0\1", "a Photoshop document", "Export"),
        (b"\x89PNG\n\x1a\n\0\0\0\rIHDR", "transferred as text", "binary"),
        (b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\0\x10JFIF", "transferred as text", "binary"),
        (bytes(4096), "nothing but zeros", "again"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "attributes of a file", "Remove"),
        (b'{"error": "Not found"}', "a text", "Download"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a text", "Download"),
    ],
)
def test_what_is_no_picture_is_said_to_be_what_it_is(tmp_path, content, what, remedy):
    path = tmp_path / "photograph.jpg"
    path.write_bytes(content)
    with pytest.raises(checks.InputError, match=what) as error:
        images.read_image(path)
    assert str(path) in str(error.value) and remedy in error.value.remedy


def test_content_counts_and_not_the_ending(tmp_path, picture):
    for kind in ("WEBP", "BMP", "PPM", "TIFF"):
        (tmp_path / "photograph.jpg").write_bytes(
            _encoded(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))
        )
        assert np.array_equal(images.read_image(tmp_path / "photograph.jpg"), picture), kind


def test_cmyk_is_converted_as_viewers_do(tmp_path, picture):
    import io

    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(picture).convert("CMYK").save(target, "JPEG", quality=95)
    (tmp_path / "print.jpg").write_bytes(target.getvalue())
    assert np.abs(images.read_image(tmp_path / "print.jpg").astype(int) - picture).max() <= 16


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ((2160, 3840), (2160, 3840)), ((480, 640), (480, 640)), ((9000, 12000), (2494, 3325)),
        ((100, 40_000), (20, 8192)), ((14_000, 14_000), (2880, 2880)), ((8, 60_000), (8, 8192)),
    ],
)  # fmt: skip
def test_larger_pictures_than_4k_are_bounded_and_keep_their_shape(own, wanted):
    assert images.bounded_size(own) == wanted
    assert wanted[0] * wanted[1] <= images.MAX_WHOLE and max(wanted) <= images.MAX_SIDE


@pytest.mark.parametrize(
    ("kind", "white"), [(np.uint16, 65535), (np.uint16, 4095), (np.float32, 1.0), (np.float32, 255.0)]
)
def test_other_types_are_turned_strip_by_strip(kind, white, monkeypatch, tmp_path):
    values = np.random.default_rng(0).uniform(0.9, 1, (300, 400, 3)) * white
    values = values.astype(kind)
    whole = images._to_uint8(values, tmp_path)
    monkeypatch.setattr(images, "_STRIP", 4000)
    tracemalloc.start()
    assert np.array_equal(images._to_uint8(values, tmp_path), whole)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * whole.nbytes, "a copy in floats has eight times as many"


def test_of_giants_one_is_unpacked_at_a_time(tmp_path, picture, monkeypatch):
    path, inside, most = images.write_image(tmp_path / "a.png", picture), [], []
    monkeypatch.setattr(images, "MAX_WHOLE", 10)
    unpacked = images._unpacked

    def watched(*arguments):
        inside.append(1)
        most.append(len(inside))
        image = unpacked(*arguments)
        inside.pop()
        return image

    monkeypatch.setattr(images, "_unpacked", watched)
    threads = [threading.Thread(target=images.read_image, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


@pytest.mark.parametrize(
    ("made", "below", "said"),
    [
        (("a.png", "b.HEIC", "c.heic", "d.dng"), True, ["2 .heic, 1 .dng", "convert them"]),
        (("a.png", "b.tga", "c.ico"), True, ["1 .tga, 1 .ico"]),
        (("a.png", "sub/b.avif", "sub/c.png"), True, ["1 .avif"]),
        (("a.png", "sub/b.png"), False, ["not searched: sub"]),
        (("a.png", "u/1.png", "v/1.png", "w/1.png", "x/1.png", "y/1.txt"), False, ["u, v, w and 1 more"]),
        (("a.png", "notes.txt", "._b.heic", ".c.gif", "sub/d.png"), True, []),
    ],
)
def test_what_a_folder_holds_beside_pictures_that_are_read_is_said_once(made, below, said, tmp_path, caplog):
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for _ in range(2):
        assert tmp_path / "a.png" in images.find_pictures(tmp_path, below=below)
    told = "\n".join(caplog.messages)
    assert all(words in told for words in said) and len(caplog.messages) == bool(said), told


@pytest.mark.parametrize("below", [True, False])
def test_links_to_pictures_that_are_not_there_are_said(tmp_path, caplog, below):
    (tmp_path / "a.png").touch()
    for name in ("b.png", "c.JPG", "d.txt", ".#a.png"):  # the last is a lock of an editor
        (tmp_path / name).symlink_to(".git/annex/objects/missing")
    assert images.find_pictures(tmp_path, below=below) == [tmp_path / "a.png"]
    assert len(caplog.messages) == 1 and "2 links" in caplog.text and "(b.png, c.JPG)" in caplog.text


def _with_chunk(png, kind, content):
    chunk = len(content).to_bytes(4, "big") + kind + content
    return png[:33] + chunk + zlib.crc32(kind + content).to_bytes(4, "big") + png[33:]


@pytest.mark.parametrize("kind", ["profile", "sRGB", "junk in a JPEG"])
def test_what_libraries_print_of_a_file_is_logged_once_with_its_name(
    kind, textured, tmp_path, capfd, caplog, monkeypatch
):
    monkeypatch.setattr(images._quiet_opencv, "_told", set())  # other tests may have told enough
    suffix, image = (".jpg" if "JPEG" in kind else ".png"), textured()
    content = cv2.imencode(suffix, image)[1].tobytes()
    if kind == "profile":
        content = _with_chunk(content, b"iCCP", b"bad\0\0" + zlib.compress(bytes(200)))
    elif kind == "sRGB":
        content = _with_chunk(content, b"sRGB", b"\x09")
    else:
        content = content[:-2] + bytes(7) + content[-2:]
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in (*paths, *paths, *paths):
        path.write_bytes(content)
        assert images.read_image(path).shape == image.shape
    told = [record.getMessage() for record in caplog.records]
    assert [sum(str(path) in line for line in told) for path in paths] == [1, 1]
    assert "libpng" not in (err := capfd.readouterr().err) and "Corrupt" not in err


def test_what_others_write_while_a_picture_is_read_is_passed_on(tmp_path, capfd):
    with images._quiet_opencv(tmp_path / "a.png"), images._quiet_opencv(tmp_path / "b.png"):
        os.write(2, b"of another thread\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "of another thread\nafterwards\n"
