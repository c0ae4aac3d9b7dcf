"""How weights change: the steps of one and of two terms, their gradients, optimizer, schedules and average."""
