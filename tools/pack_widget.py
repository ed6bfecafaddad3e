"""Packs amoCRM's widget: `python tools/pack_widget.py DIRECTORY ARCHIVE`. Standard library only."""

import json
import struct
import sys
import zipfile
import zlib
from pathlib import Path

# Sizes that the account's list of integrations wants, by file name.
LOGOS = {"logo_min.png": (84, 84), "logo_small.png": (108, 108), "logo.png": (130, 100), "logo_medium.png": (240, 84), "logo_main.png": (400, 272)}
BLUE, WHITE = b"\x1f\x6f\xeb", b"\xff\xff\xff"


def pack(directory: Path, archive: Path) -> list[str]:
    """Writes the archive, the same bytes for the same files; gives the names in it. Raises ValueError for what amoCRM would refuse."""
    manifest = json.loads((directory / "manifest.json").read_text())
    words = {path.stem: json.loads(path.read_text()) for path in sorted((directory / "i18n").glob("*.json"))}
    if sorted(manifest["widget"]["locale"]) != sorted(words):
        raise ValueError(f"the manifest names the languages {manifest['widget']['locale']}, and i18n has {sorted(words)}")
    for language, texts in words.items():
        for key in [value for value in manifest["widget"].values() if isinstance(value, str) and value.startswith("widget.")]:
            if key.partition(".")[2] not in texts["widget"]:
                raise ValueError(f"i18n/{language}.json has no {key}")
    files = {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}
    files |= {f"images/{name}": logo(*size) for name, size in LOGOS.items()}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in sorted(files.items()):
            packed.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return sorted(files)


def logo(width: int, height: int) -> bytes:
    """A PNG: a white handset's arc on blue."""
    rows = []
    middle, radius = (width / 2, height / 2), min(width, height) * 0.32
    for y in range(height):
        row = b"\0"
        for x in range(width):
            distance = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2) ** 0.5
            is_arc = radius * 0.7 <= distance <= radius and (x - middle[0]) + (y - middle[1]) < radius * 0.6
            row += WHITE if is_arc else BLUE
        rows.append(row)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows), 9)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: pack_widget.py DIRECTORY ARCHIVE")
    try:
        names = pack(Path(sys.argv[1]), Path(sys.argv[2]))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"the widget cannot be packed: {error}")
    print(f"{sys.argv[2]}: {len(names)} files")
