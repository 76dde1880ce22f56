"""Where a run's first weights come from: pretrained parts, read strictly and without running anybody's code."""
