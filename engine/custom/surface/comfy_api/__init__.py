"""`comfy_api`: V3 nodes."""
