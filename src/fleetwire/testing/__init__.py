"""Shipped doubles and a laboratory, for our tests and for users' own.

Nothing here imitates our own library: the doubles are the other side of the wire and speak the
real protocol on real sockets; the lab starts the real processes and judges them from outside.
"""
