"""Part of aim-bench: what is added to image models, and what is trained."""
