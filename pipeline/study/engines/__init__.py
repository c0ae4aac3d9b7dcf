"""Where cells run: what waits and comes again, processes of this machine, a Ray cluster."""
