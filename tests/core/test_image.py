import io
import random
import struct
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from maskfast.core.errors import ImageError
from maskfast.core.image import load_image, open_image, read_header

LOSSY = {"AVIF", "HEIF"}


def make_scene(width: int = 90, height: int = 60, *, seed: int = 0) -> Image.Image:
    """A smooth coloured picture without any symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


pillow_heif.register_heif_opener()


def encode(img: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    img.save(stream, kind, **options)
    return stream.getvalue()


def refuse(source: object, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, 32, name="photo", **options)  # type: ignore[arg-type]
    assert caught.value.name == "photo"
    assert "\n" not in str(caught.value)
    return caught.value.reason


def difference(first: object, second: object) -> np.ndarray:
    return np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_the_eight_orientations_give_the_same_array(kind: str) -> None:
    scene = make_scene()
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF 2.32, table 6: undoes what the tag says
    assert back[6] == Image.Transpose.ROTATE_90
    best = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "HEIF": {"quality": -1, "chroma": 444}}
    arrays = []
    for orientation, undo in back.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = scene if undo is None else scene.transpose(Image.Transpose(undo))
        arrays.append(load_image(encode(stored, kind, exif=exif.tobytes(), **best.get(kind, {})), 48))
    tolerance = 6 if kind in LOSSY else 0  # lossy, so that the turned picture is coded otherwise
    assert all(difference(array, arrays[0]).max() <= tolerance for array in arrays)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation_is_what_pillow_makes_of_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(make_scene(), "JPEG", exif=exif)
    assert np.array_equal(open_image(data), ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_opened_picture_can_be_opened_again(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    once = open_image(encode(make_scene(), kind, exif=exif))
    assert once.size == (60, 90)
    assert np.array_equal(open_image(once), once)
    clear = open_image(
        encode(make_scene().convert("L"), "PNG", transparency=make_scene().convert("L").getpixel((0, 0)))
    )
    assert np.array_equal(open_image(clear), clear)


def test_the_memory_of_deep_pixels_is_bounded() -> None:
    data = encode(Image.fromarray(np.zeros((4000, 4000), dtype=np.uint16)), "PNG")
    tracemalloc.start()
    open_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # 16 million pixels of float64 would be 128 MB


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encode(make_scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xee" * 40)
    assert np.array_equal(open_image(data), Image.open(io.BytesIO(encode(make_scene(), "JPEG"))))


def on_white(img: Image.Image) -> np.ndarray:
    rgba = np.asarray(img.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha))


def with_alpha(mode: str) -> Image.Image:
    img = make_scene().convert("RGBA")
    img.putalpha(Image.linear_gradient("L").resize(img.size))
    return img.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "HEIF"])
def test_transparency_is_laid_on_white(mode: str, kind: str) -> None:
    data = encode(with_alpha(mode), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert difference(open_image(data), on_white(Image.open(io.BytesIO(data)))).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_png_transparent_colour_is_laid_on_white(mode: str) -> None:
    img = make_scene().convert("L").quantize(8) if mode == "P" else make_scene().convert(mode)
    first = img.getpixel((0, 0))
    data = encode(img, "PNG", transparency=first)
    array = np.asarray(open_image(data))
    assert tuple(array[0, 0]) == (255, 255, 255)
    assert difference(array, on_white(Image.open(io.BytesIO(data)))).max() == 0


def test_gif_transparency_is_laid_on_white() -> None:
    data = encode(make_scene().quantize(16), "GIF", transparency=3)
    assert difference(open_image(data), on_white(Image.open(io.BytesIO(data)))).max() == 0


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"),
        ("P", "GIF"), ("RGB", "WEBP"), ("P", "BMP"), ("RGB", "BMP"), ("1", "TIFF"), ("CMYK", "TIFF"),
        ("RGB", "TIFF"), ("RGB", "AVIF"), ("RGB", "HEIF"), ("L", "HEIF"),
    ],
)  # fmt: skip
def test_modes_are_what_pillow_converts_them_to(mode: str, kind: str) -> None:
    data = encode(make_scene().convert(mode), kind)
    assert np.array_equal(open_image(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_adobe_cmyk_looks_as_its_rgb_original() -> None:
    assert difference(open_image(encode(make_scene().convert("CMYK"), "JPEG", quality=100)), make_scene()).mean() < 3


def test_lab_looks_as_its_rgb_original() -> None:
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(make_scene(), to_lab)
    assert difference(open_image(encode(lab, "TIFF")), make_scene()).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_spans_the_whole_range(kind: str) -> None:
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    array = np.asarray(open_image(encode(Image.fromarray(deep), kind)))
    assert np.array_equal(array, np.repeat(np.rint(deep / 257.0)[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 256, dtype=np.float32), np.arange(256)),
        (np.arange(256, dtype=np.float32), np.arange(256)),
        (np.arange(256, dtype=np.int32), np.arange(256)),
        (np.arange(256, dtype=np.int32) * 257, np.arange(256)),
        (np.arange(256, dtype=np.int32) * 100_000, np.arange(256)),
        (np.arange(-128, 128, dtype=np.int32), np.arange(256)),
    ],
)
def test_deep_modes_are_scaled(values: np.ndarray, expected: np.ndarray) -> None:
    img = Image.fromarray(values.reshape(16, 16))
    assert np.array_equal(np.asarray(open_image(encode(img, "TIFF")))[..., 0], expected.reshape(16, 16))


def test_pixels_that_are_not_finite_are_refused() -> None:
    assert "finite" in refuse(encode(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    red = load_image(data, 8).reshape(-1, 3).mean(axis=0)
    assert red[0] > 240
    assert red[2] < 15


def test_squish_pad_and_crop() -> None:
    scene = make_scene(90, 60)
    squished, padded, cropped = (load_image(scene, 30, method) for method in ("squish", "pad", "crop"))
    assert np.array_equal(squished, scene.resize((30, 30), Image.Resampling.BILINEAR))
    assert np.array_equal(padded[5:25], scene.resize((30, 20), Image.Resampling.BILINEAR))
    assert not padded[:5].any()
    assert not padded[25:].any()
    middle = scene.resize((30, 30), Image.Resampling.BILINEAR, box=(15, 0, 75, 60))
    assert np.array_equal(cropped, middle)


@pytest.mark.parametrize("method", ["squish", "pad", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_shapes(method: str, size: tuple[int, int]) -> None:
    assert load_image(Image.new("RGB", size, "red"), 24, method).shape == (24, 24, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_kind_of_source_gives_the_same_array(tmp_path: Path, kind: str) -> None:
    data = encode(make_scene(1200, 900), kind)
    path = tmp_path / "wrong.txt"
    path.write_bytes(data)
    with Image.open(path) as undecoded:
        arrays = [load_image(source, 96) for source in (data, path, str(path), undecoded, bytearray(data))]
    assert all(np.array_equal(array, arrays[0]) for array in arrays)
    decoded = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(load_image(decoded, 96), load_image(Image.fromarray(decoded), 96))
    assert difference(load_image(decoded, 96), arrays[0]).mean() < 1


def test_a_given_picture_is_left_as_it_was() -> None:
    img = Image.open(io.BytesIO(encode(make_scene(400, 300), "JPEG")))
    load_image(img, 32)
    assert img.size == (400, 300)
    assert np.array_equal(img, Image.open(io.BytesIO(encode(make_scene(400, 300), "JPEG"))))


def test_a_given_array_is_not_shared() -> None:
    array = np.zeros((32, 32, 3), dtype=np.uint8)
    load_image(array, 32)[:] = 255
    assert not array.any()


@pytest.mark.parametrize("size", [(3000, 2000), (2000, 700), (700, 2000), (500, 400)])
def test_reduced_jpeg_decoding_stays_close_to_the_full_one(size: tuple[int, int]) -> None:
    data = encode(make_scene(*size), "JPEG", quality=90)
    full = Image.open(io.BytesIO(data)).resize((128, 128), Image.Resampling.BILINEAR)
    assert difference(load_image(data, 128), full).mean() < 1
    decoded = open_image(data, at_least=256)
    assert min(decoded.size) >= 256
    assert decoded.size == size if min(size) < 512 else min(decoded.size) < 512


def test_an_array_of_another_shape_or_type_is_refused() -> None:
    assert "(4, 4)" in refuse(np.zeros((4, 4), dtype=np.uint8))
    assert "float64" in refuse(np.zeros((4, 4, 3)))
    assert "NoneType" in refuse(None)


def make_chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make_png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0")
    return b"\x89PNG\r\n\x1a\n" + make_chunk(b"IHDR", header) + make_chunk(b"IDAT", pixels) + make_chunk(b"IEND")


def test_a_missing_empty_or_special_file(tmp_path: Path) -> None:
    assert refuse(tmp_path / "none.jpg") == "no such file or directory"
    assert refuse(tmp_path) == "is a folder"
    assert refuse(b"") == "empty file"
    assert refuse("/dev/null") == "is no regular file"


@pytest.mark.parametrize("data", [b"hello", b"%PDF-1.4", b"\0" * 999, b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert "not a picture" in refuse(data)


@pytest.mark.parametrize("kind", ["PCX", "PPM", "TGA", "SGI", "ICO", "EPS", "PDF", "DDS", "JPEG2000"])
def test_formats_outside_the_list_never_reach_their_decoder(kind: str) -> None:
    assert "not a picture" in refuse(encode(make_scene(), kind))


@pytest.mark.parametrize("size", [(60_000, 60_000), (100_000, 1300)])
def test_a_huge_header_is_refused_before_decoding(size: tuple[int, int]) -> None:
    began = time.monotonic()
    assert "pixels" in refuse(make_png_header(*size))
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(("side", "refused"), [(64, False), (30_000, True)])
def test_a_small_tiff_of_huge_tiles_is_refused_before_decoding(side: int, refused: bool) -> None:
    content = zlib.compress(bytes(64 * 64))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 0, 325: len(content)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + content
    if refused:
        assert refuse(data) == "30000 x 30000 pixels of a tile are more than 120000000"
    else:
        assert load_image(data, 32).max() == 0


def test_the_pixel_bound_is_an_option() -> None:
    assert refuse(make_scene(10, 10), max_pixels=99) == "10 x 10 pixels are more than 99"
    assert load_image(make_scene(10, 10), 8, max_pixels=100).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files_are_refused(kind: str, kept: float) -> None:
    data = encode(make_scene(300, 200), kind)
    assert refuse(data[: int(len(data) * kept)])


@pytest.mark.parametrize(("kind", "cut"), [("JPEG", 2), ("PNG", 12), ("GIF", 1), ("WEBP", 1), ("BMP", 1)])
def test_a_missing_end_is_noticed(kind: str, cut: int) -> None:
    assert refuse(encode(make_scene(300, 200), kind)[:-cut])


def test_a_gif_cut_after_its_first_frame_is_noticed() -> None:
    frames = [make_scene(seed=seed) for seed in range(4)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert refuse(data[: len(data) // 2]) == "truncated file"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_bytes_after_the_end_do_no_harm(kind: str) -> None:
    data = encode(make_scene(), kind)
    assert np.array_equal(load_image(data + b"\0" * 50, 32), load_image(data, 32))


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encode(make_scene(), "JPEG", progressive=True)
    assert refuse(data[:-2] + b"\xff\xda" * 1000 + data[-2:]) == "JPEG of more than 200 scans"


def test_the_larger_a_jpeg_the_fewer_scans_it_may_have() -> None:
    data = encode(Image.new("L", (8000, 8000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    assert load_image(data[:-2] + last * (37 - scans) + data[-2:], 32).shape == (32, 32, 3)
    assert refuse(data[:-2] + last * (38 - scans) + data[-2:]) == "JPEG of more than 37 scans"


def put_pieces(kind: str, piece: bytes, *, size: int) -> bytes:
    """A picture with copies of `piece`, some bytes of metadata, ahead of its pixels."""
    data = encode(make_scene(), kind)
    at = {"PNG": 33, "JPEG": 2, "GIF": 13 + 3 * 2 ** ((data[10] & 7) + 1)}[kind]
    return data[:at] + piece * (size // len(piece)) + data[at:]


COMMENT = b"!\xfe\x03abc\x00"
PIECES = [
    ("PNG", make_chunk(b"tEXt", b"a\0b"), "made of too many pieces (more than 500000 reads)"),
    ("PNG", make_chunk(b"prVt"), "made of too many pieces (more than 500000 reads)"),
    ("PNG", make_chunk(b"IDAT"), "made of too many pieces (more than 500000 reads)"),
    ("JPEG", b"\xff\xfe\0\x03a", "made of too many pieces (more than 500000 reads)"),
    ("JPEG", b"\xff\xe0\0\2", "made of too many pieces (more than 500000 reads)"),
    ("JPEG", b"\xff", "made of too many pieces (more than 500000 reads)"),
    ("GIF", COMMENT, "GIF of more than 5000 blocks before its first frame"),
    ("GIF", b"\0", "GIF of more than 5000 blocks before its first frame"),
]


@pytest.mark.parametrize(("kind", "piece", "reason"), PIECES)
def test_a_file_in_millions_of_pieces_is_refused(kind: str, piece: bytes, reason: str) -> None:
    assert refuse(put_pieces(kind, piece, size=5_000_000)) == reason


@pytest.mark.parametrize(
    ("kind", "piece"), [(kind, piece) for kind, piece, _ in PIECES if piece != make_chunk(b"IDAT")]
)
def test_a_file_in_thousands_of_pieces_is_read(kind: str, piece: bytes) -> None:
    assert np.array_equal(
        load_image(put_pieces(kind, piece, size=4_000), 32), load_image(encode(make_scene(), kind), 32)
    )


def test_a_gif_of_millions_of_blocks_is_refused() -> None:
    data = encode(make_scene(), "GIF")
    assert refuse(data[:-1] + b"!\xfe" + b"\1a" * 2_000_000 + b"\0;") == "GIF of more than 2000000 blocks"
    assert load_image(data[:-1] + b"!\xfe" + b"\1a" * 20_000 + b"\0;", 32).shape == (32, 32, 3)


def test_a_png_of_millions_of_chunks_is_refused_without_a_look_at_them() -> None:
    data = encode(make_scene(), "PNG")
    assert refuse(data[:-12] + make_chunk(b"prVt") * 2_000_001 + data[-12:]) == "PNG of more than 2000000 chunks"


def make_directory(size: int, *, entries: int, orientation: int | None = 6) -> bytes:
    """A TIFF directory, as EXIF is one, whose entries all tell of the same nearly `size` bytes."""
    count = entries + (orientation is not None)
    at = 8 + 2 + 12 * count + 4
    content = b"" if orientation is None else struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    content += b"".join(struct.pack("<HHII", 40_000 + index, 7, size - at, at) for index in range(entries))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", count) + content + bytes(4)).ljust(size, b"\0")


def put_exif(kind: str, exif: bytes) -> bytes:
    if kind != "JPEG":
        with warnings.catch_warnings(action="ignore"):  # Pillow looks at what it writes, and may warn of it
            return encode(make_scene(), kind, exif=exif)
    data = encode(make_scene(), kind)
    parts = [b"Exif\0\0" + exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts) + data[2:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_exif_that_tells_of_one_place_again_and_again_takes_little_memory(kind: str) -> None:
    orientation = None if kind in LOSSY else 6  # Pillow would write another EXIF for it
    data = put_exif(kind, make_directory(1_000_000, entries=100, orientation=orientation))
    assert len(data) > 1_000_000
    tracemalloc.start()
    img, header = open_image(data), read_header(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert img.size == (header.width, header.height) == ((60, 90) if orientation else (90, 60))
    assert peak < 30e6  # 100 copies would be 100 MB


def test_a_tiff_that_tells_of_one_place_again_and_again_takes_little_memory() -> None:
    data = encode(make_scene(), "TIFF")
    at = struct.unpack("<I", data[4:8])[0]
    (count,) = struct.unpack("<H", data[at : at + 2])
    entries = data[at + 2 : at + 2 + 12 * count]
    more = b"".join(struct.pack("<HHII", 40_000 + index, 7, 500_000, 0) for index in range(200))
    directory = struct.pack("<H", count + 200) + entries + more + bytes(4)
    told = data[:4] + struct.pack("<I", len(data)) + data[8:] + directory + bytes(500_000)
    tracemalloc.start()
    with suppress(ImageError):  # Pillow 13 itself skips what is more than the file holds
        assert np.array_equal(load_image(told, 32), load_image(data, 32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # 200 copies would be 100 MB
    once = struct.pack("<H", count + 1) + entries + more[:12] + bytes(4)
    read = data[:4] + struct.pack("<I", len(data)) + data[8:] + once + bytes(500_000)
    assert np.array_equal(load_image(read, 32), load_image(data, 32))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_that_begins_a_million_times_is_no_reason_to_wait(kind: str) -> None:
    assert open_image(encode(make_scene(), kind, exif=b"Exif\0\0" * 300_000)).size == (90, 60)


def test_pillow_warnings_stay_inside() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x9286, 2, 4000, 9999)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load_image(encode(make_scene(), "JPEG", exif=exif), 32)
        load_image(Image.new("P", (9000, 10_500)), 32, max_pixels=10**9)
        before = list(warnings.filters)
        warnings.warn("ours", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["ours"]
    assert before[0][0] == "always"


def test_many_threads_leave_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    data = encode(make_scene(600, 400), "JPEG")
    threads = [threading.Thread(target=lambda: [load_image(data, 64) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def flip_bytes(data: bytes, chance: random.Random) -> bytes:
    fuzzed = bytearray(data)
    for _ in range(chance.choice([1, 2, 8, 40])):
        fuzzed[chance.randrange(len(fuzzed))] = chance.randrange(256)
    return bytes(fuzzed)


def cut_middle(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 200) :]


def repeat_middle(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start : start + 100] * chance.randrange(2, 9) + data[start:]


@pytest.mark.faults
@pytest.mark.parametrize("damage", [flip_bytes, cut_middle, repeat_middle])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF"])
def test_damaged_bytes_give_a_picture_or_the_one_error(
    kind: str, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    data = encode(make_scene(), kind)
    chance = random.Random(f"{kind} {damage.__name__}")
    for _ in range(100):
        began = time.monotonic()
        with suppress(ImageError):
            assert load_image(damage(data, chance), 32, max_pixels=10**6).shape == (32, 32, 3)
        assert time.monotonic() - began < 2


def test_a_format_without_its_plugin_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(make_scene(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert refuse(data) == "HEIF cannot be read here: pip install pillow-heif"


def test_the_header_says_the_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").write_bytes(encode(make_scene(90, 60), "JPEG", exif=exif))
    assert read_header(tmp_path / "a") == ("JPEG", "RGB", 60, 90)
    assert read_header(make_scene(90, 60).convert("L")) == ("", "L", 90, 60)
    with pytest.raises(ImageError, match="header is broken"):
        read_header(b"\xff\xd8\xff" + b"\0" * 99)
