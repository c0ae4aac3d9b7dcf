"""`rarevox export`: a run's network as a program for other runtimes, checked against the network itself."""
