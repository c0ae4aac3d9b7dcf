"""What stands beside the maps in a folder of predictions."""

BOOKS = {"journal", "predictions.csv", "predictions.json", "summary.html"}
