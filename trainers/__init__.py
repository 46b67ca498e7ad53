"""How the models of the zoo are trained. Importing this package imports nothing heavy; see `trainers.train`."""
