"""The command `microtome`: one file per command. A command parses, calls one library function, and prints."""
