"""The campaign of crashes and kills. Each part is a module with a line about it (`ABOUT`) and two functions.

`ids(seed)` yields the ids of its cases, without end; `attempt(seed, id, folder)` tries one in an empty folder, and
returns None if all held, else in one line what did not.
"""
