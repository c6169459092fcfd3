"""Nudges: "look again". They carry no truth and may be lost (architecture 5.14)."""
