"""The demo world: pictures drawn by code, a new thing to teach, and the scripts that made the bundled models."""
