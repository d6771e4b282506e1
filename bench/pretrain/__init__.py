"""Pretraining of the tiny backbones of the embedded default: on rendered stills, without video or motion."""
