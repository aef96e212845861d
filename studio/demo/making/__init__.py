"""Makes the bundled models of the demo world again: `python -m studio.demo.making --out configs/demo`."""
