"""Where cases are found: folders of subjects, pairs of folders, lists and data lists."""
