"""Image files decoded: what is damaged, what their numbers mean, and in which colours.

opening, damage             a file opened, none of its bytes damaged
decode                      its pixels, whole
pixel_types, density        what the numbers mean; pixels for an inch
profiles, boxes             ICC profiles; colours in boxes of JPEG 2000, AVIF and HEIF
netpbm                      PBM, PGM, PPM
"""
