"""One module per group of routes; each exports `router`."""
