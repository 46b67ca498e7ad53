"""Measurements of speed and memory. Times are compared within one interleaved run, because machines are noisy.

What is timed here compiles its programs, as the first run of an architecture on a machine does.
"""

import os

os.environ["FMNIST_ZOO_COMPILE_CACHE"] = "0"
