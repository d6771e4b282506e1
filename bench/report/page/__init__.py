"""The page of a run: one file that needs no network, with its table, plots, videos and origins."""
