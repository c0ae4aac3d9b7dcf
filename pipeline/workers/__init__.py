"""Many workers at one piece of work: processes of this machine, actors on Ray, shares of a job array."""
