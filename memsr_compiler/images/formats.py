"""The image formats that are read and written: a closed list, each of which is tested.  Others are refused by name.

Of rare formats Pillow and libvips make other colours now and then, and say nothing: their decoders never see a byte.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from memsr_compiler.errors import InvalidInput

# In Pillow's words.  MPO opens as JPEG.  The last two begin with little that tells them from others: these come first.
BY_PILLOW = (
    *("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000"),
    *(["AVIF"] if find_spec("PIL.AvifImagePlugin") else []),  # since Pillow 11.3
    *("DIB", "TGA"),
)
# In libvips's words, those of HEIC, AVIF and JPEG XL among them; uhdrload is of JPEGs with a map for bright displays.
BY_LIBVIPS = ("pngload", "jpegload", "uhdrload", "tiffload", "webpload", "heifload", "jp2kload", "jxlload")
WORDS = "PNG, JPEG, TIFF, WebP, AVIF, JPEG 2000, GIF, BMP, TGA, PBM, PGM or PPM; with pyvips HEIC too"
WRITTEN = {  # by `write_image`, by file name extensions, and what Pillow calls them
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".tga": "TGA",
}

_HEAD = 4096  # bytes by which others are known
_DRAWINGS = {
    "SVG": rb"(?:\xef\xbb\xbf)?\s*<(?:svg|[?!].*?<svg)[\s>]",
    "PDF": rb"%PDF-",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "WMF": rb"\xd7\xcd\xc6\x9a|\x01\0\x09\0\0[\x01\x03]",
    "EMF": rb"\x01\0\0\0.{36} EMF",
}
_OTHERS = {  # as exactly as can be: a TGA may begin nearly as any of them
    "PSD (Adobe Photoshop)": rb"8BPS",
    "XCF (GIMP)": rb"gimp xcf",
    "GBR (GIMP's brushes)": rb"\0\0.{2}\0\0\0[\x01\x02].{12}GIMP",
    "FITS (astronomy)": rb"SIMPLE  =",
    "DICOM (medicine)": rb"\0{16}.{112}DICM",
    "NIfTI (medicine)": rb"(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n[+i]1\0",
    "SPIDER (microscopy)": rb"\x3f\x80\0\0.{12}\x3f\x80\0\0|\0\0\x80\x3f.{12}\0\0\x80\x3f",
    "Matlab": rb"MATLAB ",
    "HDF5": rb"\x89HDF\r\n",
    "GRIB": rb"GRIB",
    "BUFR": rb"BUFR",
    "McIDAS": rb"\0{7}\x04",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?R(?:ADIANCE|GBE)",
    "JPEG XR": rb"II\xbc[\0\x01]",
    "QOI": rb"qoif",
    "ICO (icons of Windows)": rb"\0\0\x01\0",
    "CUR (cursors of Windows)": rb"\0\0\x02\0[^\0]\0.{3}\0",  # a TGA may have anything where its palette would be
    "ICNS (icons of macOS)": rb"icns",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]",
    "Sun raster": rb"\x59\xa6\x6a\x95",
    "PCX": rb"\x0a[\0\x02-\x05][\0\x01][\x01\x02\x04\x08]",
    "DCX": rb"\xb1\x68\xde\x3a",
    "DDS (DirectX)": rb"DDS ",
    "BLP (Blizzard)": rb"BLP[12]",
    "FTEX": rb"FTEX",
    "FLI (Autodesk)": rb".{4}[\x11\x12]\xaf.{6}\x08\0",
    "IFF": rb"FORM.{4}(?:ILBM|PBM |ACBM)",
    "MSP (Windows Paint)": rb"DanM|LinS",
    "PIXAR": rb"\x80\xe8\0\0",
    "Photo CD": rb"[\0\xff]{8}.{2040}PCD_",
    "IM (IFUNC)": rb"Image type:",
    "XPM": rb"/\* XPM \*/",
    "XBM": rb"(?:/\*.*?\*/)?\s*#define\s+\S*width\s",
    "PAM": rb"P7\s+(?!332)",
    "XV's thumbnails": rb"P7 332",
    "PFM in colour": rb"PF\s",
    "PPM of Pillow's own kinds": rb"P[0y]",
    "raw of a camera": rb"FUJIFILMCCD-RAW|.{4}ftypcrx |IIU\0|IIR[OS]|MMOR|\0MRM|FOVb",
}
_PATTERNS = {name: re.compile(pattern, re.DOTALL) for name, pattern in (_DRAWINGS | _OTHERS).items()}


def require_read(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput for a file that begins as one of a format that is not read."""
    with open(path, "rb") as file:
        start = file.read(_HEAD)
    for name, pattern in _PATTERNS.items():
        if pattern.match(start):
            raise refuse(path, name)


def require_read_by_name(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput for a file that nobody knows, and that is named like one of a format that is not read."""
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in (None, "MPO", "AVIF", *BY_PILLOW):
        raise refuse(path, f"{kind} (by its name)")


def refuse(path: str | os.PathLike[str], name: str) -> InvalidInput:
    """The error for a file of a format that is not read."""
    if name in _DRAWINGS:
        return InvalidInput(
            f"{path}: is a drawing, not a photograph ({name}): draw it as a PNG of the size that you mean"
        )
    return InvalidInput(f"{path}: is in the format {name}, which is not read: save it as PNG or TIFF")


def open_read(source: str | os.PathLike[str] | BinaryIO) -> ImageFile.ImageFile:
    """Open an image by Pillow, if it is of a format that is read.  Raises UnidentifiedImageError, and what it meets."""
    return Image.open(source, formats=BY_PILLOW)
