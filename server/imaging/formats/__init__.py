"""Decode PNG, JPEG, WebP, TIFF, BMP and DICOM files."""
