"""The server: REST API, console, agent gateway, loops and the two databases behind them.

Rooms, top to bottom: ``app``, then ``api`` | ``gateway`` | ``loops``, then ``domain``, then
``store`` | ``logs`` | ``nudges``, and below them ``durable`` (how a commit becomes durable;
it knows no table). Nothing imports upwards (architecture 4).
"""
