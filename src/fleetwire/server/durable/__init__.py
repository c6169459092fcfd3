"""How the server's writes become durable: group commit, and one thin shell per database.

Shared by `store` (the record) and `logs` (the output), which must not import each other. No
table is known here, and no SQLAlchemy.

Law 3: *acknowledged means durable*. Nothing returns to a caller before the commit that holds it.
"""
