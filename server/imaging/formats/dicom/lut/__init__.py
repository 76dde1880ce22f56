"""Apply the look-up tables and windows of a DICOM file: modality, VOI, palette."""
