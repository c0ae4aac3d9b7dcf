"""Dilated convolutions as plain ones on interleaved sub-lattices: dealing out, padding, passes in pieces."""
