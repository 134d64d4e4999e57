"""One kind of view a file: its channels, its options, and the function that draws it."""
