"""A call of `predict`: what is asked, who does it, and how far it is."""
