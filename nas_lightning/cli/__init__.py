"""The command line: one argument parser a file, imported only when used."""
