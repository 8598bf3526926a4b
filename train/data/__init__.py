"""Dialogues from files and from the network, made questions, and the examples that training reads. Imports persona_bot only."""
