"""Measurements that a person starts by hand; not part of the package, and nothing in it imports them."""
