"""A persona and turns in, a reply out, whoever writes it: this machine, several drafts, or a server."""
