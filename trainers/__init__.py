"""How the models of the zoo are trained. Importing this package imports nothing heavy; see `trainers.train`.

The order in which TensorFlow sums a matrix product depends on its number of threads within an operation, and the last
digits of a run depend on the order. So a run has a setting `threads`. Importing this package asks TensorFlow for the
default of two, unless the environment asks for another number or TensorFlow is imported already. Then a run has the
same numbers on any number of cores. On eight cores and with large batches, eight threads are faster; the numbers are
those of eight threads.
"""

import os
import sys

THREADS = 2
THREADS_VARIABLE = "TF_NUM_INTRAOP_THREADS"
THREADS_GIVEN = os.environ.get(THREADS_VARIABLE, "")  # by the user, before the next lines set it

if "tensorflow" not in sys.modules:
    os.environ.setdefault(THREADS_VARIABLE, str(THREADS))
