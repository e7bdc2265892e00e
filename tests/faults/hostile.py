"""Hostile and broken inputs, each made on the spot, with what maskfast must answer."""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Case(NamedTuple):
    title: str
    make: Callable[[Path], Path]
    """Writes the input below a folder and returns the DATA to give."""
    answer: str
    """A part of the one line, or of the listed row."""
    code: int = 2


def encode(seed: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").rotate(17 * seed).resize((40 + seed, 40)).convert("RGB").save(stream, kind)
    return stream.getvalue()


LABELS = "image,target\na.png,1\nb.png,0\n"
GOOD = [("a.png", encode(1)), ("b.png", encode(2))]


def challenge(labels: str | bytes = LABELS, files: Sequence[tuple[str, bytes]] = ()) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "images").mkdir()
        for name, content in [*GOOD, *files]:
            (folder / "images" / name).write_bytes(content)
        (folder / "train_labels.csv").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
        return folder

    return make


def row(line: str) -> Callable[[Path], Path]:
    return challenge(LABELS + line + "\n")


def picture(content: bytes, name: str = "c.jpg") -> Callable[[Path], Path]:
    return challenge(LABELS + f"{name},1\n", [(name, content)])


def archive(
    *entries: tuple[str | zipfile.ZipInfo, bytes], patch: Callable[[bytearray], None] | None = None
) -> Callable[[Path], Path]:
    """A challenge folder whose images.zip holds the good pictures and `entries`, its bytes changed by `patch`."""

    def make(folder: Path) -> Path:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in [*GOOD, *entries]:
                opened.writestr(name, content)
        data = bytearray(stream.getvalue())
        if patch is not None:
            patch(data)
        (folder / "images.zip").write_bytes(data)
        (folder / "train_labels.csv").write_text(LABELS)
        return folder

    return make


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name  # past the constructor, which mends some names
    info.external_attr = mode << 16
    info.create_system = 3
    return info


def find_central(data: bytearray, number: int) -> int:
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\1\2", at + 1)
    return at


def encrypt_flag(data: bytearray) -> None:
    data[find_central(data, 0) + 8] |= 1
    data[6] |= 1


def overlap(data: bytearray) -> None:
    first, second = find_central(data, 0), find_central(data, 1)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]


def lie_about_size(data: bytearray) -> None:
    at = find_central(data, 0)
    data[at + 24 : at + 28] = struct.pack("<I", 10)


def damage(data: bytearray) -> None:
    data[60:80] = bytes(20)


def rename(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def patch(data: bytearray) -> None:
        assert len(old) == len(new)
        data[:] = data.replace(old, new)

    return patch


def truncate(data: bytearray) -> None:
    del data[len(data) // 2 :]


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def put_in(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at:]


GIF_OF_COMMENTS = put_in(encode(3, "GIF"), 13 + 3 * 2 ** ((encode(3, "GIF")[10] & 7) + 1), b"!\xfe\1a\0" * 6000)


def nest_bomb(layers: int = 3) -> bytes:
    content = bytes(2**20)
    for _ in range(layers):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
            for number in range(8):
                opened.writestr(f"{number}.zip", content)
        content = stream.getvalue()
    return content


def nested(folder: Path) -> Path:
    archive(("inner.png", nest_bomb()))(folder)
    (folder / "train_labels.csv").write_text(LABELS + "inner.png,1\n")
    return folder


def huge_png() -> bytes:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND")


def folders(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for seed, name in enumerate(names):
            (folder / name).mkdir(parents=True)
            (folder / name / "a.png").write_bytes(encode(seed))
        return folder

    return make


def linked_loop(folder: Path) -> Path:
    folders("mask", "no_mask")(folder)
    (folder / "mask" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "mask" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "mask" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def fifo(folder: Path) -> Path:
    challenge(LABELS + "pipe.png,1\n")(folder)
    os.mkfifo(folder / "images" / "pipe.png")
    return folder


def voc(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "annotations").mkdir()
        (folder / "a.png").write_bytes(encode(1))
        (folder / "annotations" / "a.xml").write_text(text)
        return folder

    return make


def boxes(lines: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "a.png").write_bytes(encode(1))
        (folder / "boxes.csv").write_text(lines)
        return folder

    return make


OBJECT = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
OUTSIDE = f"<annotation><filename>../../etc/passwd</filename>{OBJECT.format('mask')}</annotation>"
ENTITY = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation><filename>&e;</filename></annotation>'
KAGGLE, PLAIN = "name,x1,x2,y1,y2,classname\n", "name,xmin,ymin,xmax,ymax,classname\n"
LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{number} "{f"&a{number - 1 or str()};" * 10}">' for number in range(1, 10))
    + "]><annotation><filename>&a9;</filename></annotation>"
)

ARCHIVES = [
    Case("an entry named `../evil.png`", archive((entry("../evil.png"), b"x")), "leads outside the folder"),
    Case("an entry named `..\\evil.png`", archive((entry("..\\evil.png"), b"x")), "leads outside the folder"),
    Case("an entry named `/tmp/evil.png`", archive((entry("/tmp/evil.png"), b"x")), "has an absolute path"),
    Case("an entry named `C:\\evil.png`", archive((entry("C:\\evil.png"), b"x")), "has an absolute path"),
    Case("a symbolic link", archive((entry("evil.png", stat.S_IFLNK | 0o777), b"/etc/passwd")), "is a symbolic link"),
    Case("a named pipe", archive((entry("evil.png", stat.S_IFIFO | 0o666), b"")), "is no regular file"),
    Case("an encrypted entry", archive(patch=encrypt_flag), "is encrypted"),
    Case(
        "the same name twice",
        archive(("evil.png", b"x"), ("Evil1png", b"y"), patch=rename(b"Evil1png", b"evil.png")),
        "have the same name",
    ),
    Case("names that differ in case only", archive(("evil.png", b"x"), ("EVIL.PNG", b"y")), "have the same name"),
    Case(
        "names that differ in Unicode form only",
        archive(("\u00e9.png", b"x"), ("e\u0301.png", b"y")),
        "have the same name",
    ),
    Case("a file that is also a folder", archive(("evil", b"x"), ("evil/c.png", b"y")), "is both a file and a folder"),
    Case("a NUL in a name", archive(("evilXpng", b"x"), patch=rename(b"evilXpng", b"evil\0png")), "has no proper name"),
    Case("a name of 300 letters", archive(("e" * 300, b"x")), "has too long a name"),
    Case(
        "an entry that unpacks to 1000 times its size",
        archive(("evil.png", bytes(2**24))),
        "more than 200 times its packed size",
    ),
    Case("entries that share their packed bytes", archive(patch=overlap), "overlaps"),
    Case(
        "an entry longer than its header says", archive(patch=lie_about_size), "images.zip: not a readable zip archive"
    ),
    Case("an entry with damaged bytes", archive(patch=damage), "images.zip: "),
    Case("an archive cut in half", archive(patch=truncate), "not a zip archive, or its end is missing"),
    Case("an archive in an archive in an archive, as a picture", nested, "inner.png: not a picture", 1),
]

TABLES = [
    Case("an empty file", challenge(b""), "the file is empty"),
    Case("a header without rows", challenge("image,target\n"), "the table has no rows"),
    Case("bytes that are no text", challenge(bytes(range(256)) * 9), "not text in UTF-8"),
    Case("text with a NUL", challenge("image,target\na.png\0,1\n"), "not text"),
    Case(
        "a row with more cells than the header", challenge("image,target\na.png,1\nb.png,0,9\n"), "not a readable table"
    ),
    Case("a quote that never closes", challenge('image,target\n"a.png,1\nb.png,0\n'), "train_labels.csv"),
    Case("a column twice", challenge("image,target,target\na.png,1,0\n"), "appears twice"),
    Case(
        "labels that nobody knows",
        challenge("image,target\na.png,blue\nb.png,red\n"),
        "label 'blue' is neither mask nor no mask",
    ),
    Case("a row without label", row("c.png,"), "no label", 1),
    Case("a row labelled NaN", row("a.png,nan"), "no label", 1),
    Case("a row labelled 7", row("a.png,7"), "label '7' is neither mask nor no mask", 1),
    Case("one file under two labels", row("a.png,0"), "different labels in train_labels.csv row 2 and", 1),
    Case("the name `../../etc/passwd`", row("../../etc/passwd,1"), "the name leads outside the folder", 1),
    Case("the name `..\\..\\boot.ini`", row("..\\..\\boot.ini,1"), "the name leads outside the folder", 1),
    Case("the name `/etc/passwd`", row("/etc/passwd,1"), "not a picture", 1),
    Case("a name of 5,000 letters", row("n" * 5000 + ".png,1"), "no such file", 1),
    Case("a file that is not there", row("none.png,1"), "no such file", 1),
    Case("a name that is a formula", row("=HYPERLINK(1),1"), "=HYPERLINK(1): no such file", 1),
    Case("boxes whose corners could be read in two ways", boxes(KAGGLE + "a.png,1,2,3,4,mask\n"), "unclear"),
    Case("boxes with words for numbers", boxes(PLAIN + "a.png,1,2,x,4,mask\n"), "are not four numbers"),
    Case("boxes of an unknown class", boxes(PLAIN + "a.png,1,2,3,4,smile\n"), "class 'smile' is not known"),
]

FOLDERS = [
    Case("a folder that is not there", lambda folder: folder / "none", "no such file or folder"),
    Case("an empty folder", lambda folder: folder, "no data in a layout that is read"),
    Case("folders of classes that nobody knows", folders("blue", "red"), "is it mask or no mask?"),
    Case(
        "a folder linked into itself, a dead link and a broken picture",
        linked_loop,
        "broken.jpg: its header is broken",
        1,
    ),
    Case("a named pipe in the place of a picture", fifo, "no such file", 1),
    Case("an empty picture", picture(b""), "empty file", 1),
    Case("a text called .jpg", picture(b"hello, I am a picture"), "not a picture", 1),
    Case("an SVG called .png", picture(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "c.png"), "not a picture", 1),
    Case("a JPEG cut short", picture(encode(3, "JPEG")[:400]), "truncated", 1),
    Case("a PNG without its end", picture(encode(3)[:-12], "c.png"), "truncated file", 1),
    Case("a PNG that claims 60,000 x 60,000 pixels", picture(huge_png(), "c.png"), "pixels", 1),
    Case(
        "a PNG in 300,000 chunks",
        picture(put_in(encode(3), 33, chunk(b"prVt") * 300_000), "c.png"),
        "too many pieces",
        1,
    ),
    Case("a GIF that begins with 6,000 comments", picture(GIF_OF_COMMENTS, "c.gif"), "more than 5000 blocks", 1),
    Case("a JPEG of 300 scans", picture(put_in(encode(3, "JPEG"), -2, b"\xff\xda" * 300)), "more than 200 scans", 1),
    Case("a format that is not read, PCX", picture(encode(3, "PCX"), "c.png"), "not a picture", 1),
    Case("a VOC file with a bomb of entities", voc(LAUGHS), "no Pascal VOC annotation"),
    Case("a VOC file that reads /etc/passwd", voc(ENTITY), "no Pascal VOC annotation"),
    Case("a VOC file that is no XML", voc("not xml"), "no Pascal VOC annotation"),
    Case(
        "a VOC object without its box",
        voc("<annotation><object><name>mask</name></object></annotation>"),
        "an object without bndbox/xmin",
    ),
    Case("a VOC file that names `../../etc/passwd`", voc(OUTSIDE), "the name leads outside the folder"),
]

CASES = {"Archives": ARCHIVES, "Tables": TABLES, "Folders, pictures and annotations": FOLDERS}

HEAD = """# Hostile and broken inputs

What `maskfast audit`, `maskfast train` and every other reader of data answer to inputs that are broken by accident or
on purpose. Exit code 2: one line, nothing was done. Exit code 1: the row is listed with its reason, the rest was done.
No case shows a traceback, writes outside the cache and the named output, or takes much memory: each is tried by
`tests/faults/test_inputs.py`, which also holds this page to the cases (`python tests/faults/hostile.py` prints it).

Limits of archives (`maskfast.data.archives.ZipLimits`): 200,000 entries, 32 GiB in all, 2 GiB an entry, 200 times the
packed size for entries of more than a megabyte. Archives inside archives are never opened. Limits of pictures
(`maskfast.core.image`): 120 million pixels (and as many of a tile of a TIFF), 256 MiB a file, 500,000 reads of it
(`maskfast.core.bounded`), 20 to 200 scans of a JPEG by its pixels, 5,000 blocks before a GIF's first frame, 64 KiB of
EXIF; of tables 512 MiB, of one annotation 4 MiB.

Names that begin with `=`, `+`, `-`, `@`, a tab or a carriage return would be formulas in a spreadsheet. In the tables
that maskfast writes they get `./` in front, which names the same file and which every reader of maskfast ignores. The
ids of a submission are the challenge's own and stay as they are.
"""


def render_page() -> str:
    parts = [HEAD]
    for heading, cases in CASES.items():
        parts.append(f"\n## {heading}\n\n| input | exit code | the answer has |\n|---|---|---|\n")
        parts += [f"| {case.title} | {case.code} | {case.answer} |\n" for case in cases]
    return "".join(parts)


if __name__ == "__main__":
    print(render_page(), end="")
