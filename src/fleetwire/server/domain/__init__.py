"""Use cases: functions of a transaction, one transaction each, and queries of a connection.

A use case reads what it changes, asks `core` what the change is, and stores it; nothing in here
knows HTTP, sockets or SQL.
"""
