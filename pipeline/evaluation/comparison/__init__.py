"""Results side by side: read, paired by case, tested, shown as tables and as a page."""
