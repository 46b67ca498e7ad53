"""The assignment report: what it printed and claimed, our runs beside it, and what it got wrong.

In this room "the report" is the source document: "Deep Learning Assignment 1", a student's anonymous report for a
deep-learning course, written with TensorFlow 2.1. Its Part A builds fully-connected networks for Fashion-MNIST from raw
TensorFlow operations, its Part B with Keras. `python -m trainers.report` is the command that repeats its
experiments, and "the page" is what the command writes: `report.md`, `index.html` and their pictures.
"""
