"""What is looked at in each case: its files, what is wrong with them, a small picture to know it by and one to see."""
