"""The report: what it claims, its figures, its page."""
