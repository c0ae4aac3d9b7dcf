"""Results as DICOM objects that hospitals' systems read, and series chosen from what such systems give out."""
