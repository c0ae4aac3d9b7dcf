"""Where the prepared training cases are held: in memory, in memory-mapped files, on the device."""
