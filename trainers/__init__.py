"""How the models of the zoo are trained. Importing this package costs nothing; see `trainers.train`.

It asks TensorFlow for two threads within an operation, if nobody has asked for another number and TensorFlow is not
imported yet: the order in which a matrix product is summed depends on that number, and the last digits of a run on
the order. So a run has the same numbers on any number of cores. `TF_NUM_INTRAOP_THREADS=8` in the environment is
faster on eight of them where batches are large; its numbers are those of eight threads.
"""

import os
import sys

THREADS = 2
VARIABLE = "TF_NUM_INTRAOP_THREADS"
GIVEN = os.environ.get(VARIABLE)  # before we asked

if "tensorflow" not in sys.modules:
    os.environ.setdefault(VARIABLE, str(THREADS))
