"""Part of aim-bench: pretrained image models, opened up."""
