"""Read pretrained parts strictly and without running their code."""
