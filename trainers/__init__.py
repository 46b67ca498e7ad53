"""How the models of the zoo are trained. Importing this package imports nothing heavy; see `trainers.train`."""

import signal
import sys

if sys.argv[:1] == ["-m"] and any(word.startswith(f"{__name__}.") for word in sys.orig_argv[1:]):
    # `python -m trainers.train` is about to import the command. Ctrl-C then ends the process, without Python's
    # traceback; the command takes over in `trainers.cli.main`.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
