"""The maths of diffusion over any denoiser and a diffusers scheduler."""
