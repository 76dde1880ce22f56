"""How good the answers are: predictions, metrics, baselines, and a report with intervals."""
