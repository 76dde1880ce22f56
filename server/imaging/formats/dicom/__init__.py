"""Read and render DICOM files."""
