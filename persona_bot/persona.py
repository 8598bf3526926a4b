"""stub"""
from typing import NamedTuple
class Persona(NamedTuple):
    name: str
    sentences: tuple[str, ...]
