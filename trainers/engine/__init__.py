"""What takes steps: the network, dropout, the loop, optimizers, `Model.fit`, and the low-level page."""
