"""How the models of the zoo are trained. Importing this package costs nothing; see `trainers.train`."""
