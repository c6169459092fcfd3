"""The REST API, the event streams and the console's files: HTTP in, one domain function, HTTP out.

`doors` says what a route is (path, permission, shapes), `front` stands before all of them. Each
resource has its own file with its routes in one table at its end; `app` puts them together.
"""
