"""For all tests: threads of OpenMP sleep while they wait. Spinning ones starve each other where cores are few."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported, also by processes of tests
