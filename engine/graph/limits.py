"""How big things may be, in one place."""

MAX_SIDE = 16384  # pixels along a side of any picture or latent a node is asked for
MAX_PIXELS = 2**27  # of a picture file, all its frames together; more is a decompression bomb
MAX_BATCH = 4096
