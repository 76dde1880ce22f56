"""Decode PNG, JPEG, WebP, TIFF and BMP files, in training and in serving."""
