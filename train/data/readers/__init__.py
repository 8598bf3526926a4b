"""Readers, one kind of source each: something with dialogues -> (place, row) pairs, and rows -> Persona-Chat entries."""
