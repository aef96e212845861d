"""`comfy_execution`: expansion and blocking, as packs use them."""
