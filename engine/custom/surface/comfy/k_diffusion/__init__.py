"""`comfy.k_diffusion`: what samplers of packs build on."""
