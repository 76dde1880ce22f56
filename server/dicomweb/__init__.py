"""Fetch, list and store DICOM objects in the operator's DICOMweb sources (PS3.18: WADO-RS, QIDO-RS, STOW-RS)."""
