"""Texts beside an image: those that a result keeps, and names of what it does not.

kept                        tags of TIFF and EXIF, XMP, IPTC, texts of a PNG: read, and given on
png_texts, iptc             where a PNG, a JPEG and a TIFF have them
other_texts, other_parts    those of GIF and JPEG 2000; what nobody reads, by name
"""
