"""Measurements of speed and memory. Times are compared within one interleaved run, because machines are noisy.

Whatever is timed compiles its programs anew, as the first run of an architecture on a machine does.
"""

import os

os.environ["FMNIST_ZOO_COMPILE_CACHE"] = "0"
