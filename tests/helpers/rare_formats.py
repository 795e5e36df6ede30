"""Small files of image formats that are not read, as Pillow writes them and made by hand, and the names they go by."""

from __future__ import annotations

import io
import struct

from PIL import Image

SIDE = 16
_LEVELS = bytes(range(256))


def _fits() -> bytes:
    cards = ("SIMPLE  =                    T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 16", "NAXIS2  = 16", "END")
    return "".join(card.ljust(80) for card in cards).ljust(2880).encode() + _LEVELS + bytes(2880 - len(_LEVELS))


def _psd() -> bytes:
    return b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, SIDE, SIDE, 8, 3) + bytes(14) + _LEVELS * 3


def _sun(kind: int) -> bytes:
    return struct.pack(">8I", 0x59A66A95, SIDE, SIDE, 24, 3 * len(_LEVELS), kind, 0, 0) + _LEVELS * 3


def _sgi(size: int) -> bytes:
    return struct.pack(">hBBHHHH", 474, 0, size, 2, SIDE, SIDE, 1).ljust(512, b"\0") + _LEVELS * size


def _xpm() -> bytes:
    return b'/* XPM */\nstatic char *x[] = {\n"2 1 2 1",\n"a c #ff0000",\n"b c #0000ff",\n"ab"\n};\n'


def _cursor(pictures: int) -> bytes:
    file = io.BytesIO()
    Image.frombytes("L", (SIDE, SIDE), _LEVELS).save(file, "ICO", sizes=[(SIDE, SIDE)], bitmap_format="bmp")
    icon = file.getvalue()
    return b"\0\0\2\0" + struct.pack("<H", pictures) + icon[6:]


def _radiance() -> bytes:
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 16 +X 16\n" + _LEVELS * 4


def _nifti() -> bytes:
    return (struct.pack("<i", 348).ljust(344, b"\0") + b"n+1\0").ljust(352, b"\0") + _LEVELS


def _fli() -> bytes:
    return struct.pack("<IHHHHHHI", 999, 0xAF11, 1, SIDE, SIDE, 8, 0, 70).ljust(128, b"\0") + _LEVELS


def _emf() -> bytes:
    return struct.pack("<II32x", 1, 108) + b" EMF" + bytes(64)


def _spider() -> bytes:
    header = [0.0] * 64  # floating-point numbers, counted from 1, of which these tell of an image of one slice
    header[0], header[1], header[4], header[11], header[12], header[21], header[22] = 1, SIDE, 1, SIDE, 4, 256, 64
    return struct.pack(">64f", *header) + bytes(4 * SIDE * SIDE)


BY_HAND: dict[str, tuple[str, bytes]] = {  # by file name: what it is called, and what is in it
    "a.fits": ("FITS", _fits()),
    "a.psd": ("PSD (Adobe Photoshop)", _psd()),
    "large.psb": ("PSD", _psd().replace(b"8BPS\0\1", b"8BPS\0\2")),
    "a.sgi": ("SGI", _sgi(1)),
    "deep.sgi": ("SGI", _sgi(2)),
    "a.ras": ("Sun raster", _sun(1)),
    "rgb.ras": ("Sun raster", _sun(3)),
    "a.xpm": ("XPM", _xpm()),
    "a.xbm": ("XBM", b"/* a comment */\n#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0x0f};\n"),
    "a.eps": ("(EPS)", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n"),
    "dos.eps": ("(EPS)", b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 32, 99, 0, 0, 0, 0) + b"\xff\xff  %!PS"),
    "a.svg": ("(SVG)", b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"/>'),
    "b.svg": ("(SVG)", b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a -->\n<svg width="16" height="16"></svg>'),
    "a.pdf": ("(PDF)", b"%PDF-1.7\n%%EOF\n"),
    "a.wmf": ("(WMF)", struct.pack("<IH4HHIH", 0x9AC6CDD7, 0, 0, 0, 16, 16, 96, 0, 0) + bytes(64)),
    "a.emf": ("(EMF)", _emf()),
    "a.exr": ("OpenEXR", b"v/1\1\2\0\0\0channels\0chlist\0" + bytes(64)),
    "a.hdr": ("Radiance HDR", _radiance()),
    "a.nii": ("NIfTI", _nifti()),
    "a.mat": ("Matlab", b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + bytes(64)),
    "a.dcm": ("DICOM", bytes(128) + b"DICM" + bytes(64)),
    "a.h5": ("HDF5", b"\x89HDF\r\n\x1a\n" + bytes(64)),
    "a.grib": ("GRIB", b"GRIB\0\0\0\1" + bytes(64)),
    "a.bufr": ("BUFR", b"BUFR" + bytes(64)),
    "a.jxr": ("JPEG XR", b"II\xbc\1" + bytes(64)),
    "a.xcf": ("XCF (GIMP)", b"gimp xcf v011\0" + bytes(64)),
    "a.gbr": ("GBR", struct.pack(">7I", 30, 2, SIDE, SIDE, 1, 0x47494D50, 10) + b"a\0" + _LEVELS),
    "a.fli": ("FLI", _fli()),
    "a.pcd": ("Photo CD", b"\xff" * 2048 + b"PCD_IPI" + bytes(2048)),
    "a.pam": ("PAM", b"P7\nWIDTH 16\nHEIGHT 16\nDEPTH 1\nMAXVAL 255\nENDHDR\n" + _LEVELS),
    "a.p7": ("XV's thumbnails", b"P7 332\n#END_OF_COMMENTS\n16 16 255\n" + _LEVELS),
    "colour.pfm": ("PFM in colour", b"PF\n4 4\n-1.0\n" + bytes(192)),
    "inks.ppm": ("PPM of Pillow's own kinds", b"P0CMYK\n8 8\n255\n" + _LEVELS),
    "a.cur": ("CUR (cursors of Windows)", _cursor(1)),
    "a.spi": ("SPIDER", _spider()),
    "a.raf": ("raw of a camera", b"FUJIFILMCCD-RAW 0201" + bytes(64)),
    "a.cr3": ("raw of a camera", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(64)),
    "a.ftc": ("FTEX", b"FTEX" + bytes(64)),
    "a.pxr": ("PIXAR", b"\x80\xe8\0\0" + bytes(1020) + _LEVELS),
    "a.lbm": ("IFF", b"FORM" + struct.pack(">I", 64) + b"ILBMBMHD" + bytes(64)),
    "a.palm": ("PALM (by its name)", b"\0\x10\0\x10" + bytes(300)),
}
