"""Read images from files, arrays and DICOM for upload."""
