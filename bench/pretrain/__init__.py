"""How the tiny backbones of the embedded default are pretrained: on rendered stills, without video or motion."""
