"""Records beside the tables of a catalogue: its runs, and their listings."""
