"""Ask about the new images of DICOMweb sources, by rules, once each."""
