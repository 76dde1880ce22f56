"""Tell how unlike its training an image is, by the features of the vision tower."""
