"""What comes out of a study: tables and isolines as in the paper, rankings, verdicts on its claims, one page."""
