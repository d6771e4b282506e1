"""Uncertainty of accuracies, and tests of their differences on the same videos."""
