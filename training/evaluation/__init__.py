"""Evaluate answers: predictions, metrics, baselines, and a report with intervals."""
