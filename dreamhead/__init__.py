"""DreamHead: audio-driven dubbing by two diffusion models, on a Ray cluster."""

__version__ = "0.1.1"
