"""Other implementations of what this library does, each in a process of its own."""
