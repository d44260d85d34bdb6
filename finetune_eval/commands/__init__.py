"""The commands of the command line, what they share, and what they load."""
