"""A clean copy of the photos: upright, sRGB, no metadata, no near-duplicates; the originals are never touched."""
