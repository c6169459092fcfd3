"""Loops: each looks at the level, by a timer and by nudges, and brings it nearer to what is
wished. A loop takes no input (law 1): a nudge only makes it look sooner.
"""
