"""What strangers hand over: a table of kinds (``kinds``), each made by a few lines, and who is pushed through it.

A kind makes one entry in a folder and says what is to become of it, so that a stage can be given any of them, or all in
one folder beside good inputs. ``trial.Trial`` does the pushing in a process with limits of its own.
"""
