"""The campaign of faults: what may go wrong with files, processes and inputs, case by case, as long as one likes.

Each part is a module of this package that registers itself with `driver`; parts import nothing of one another.
"""
