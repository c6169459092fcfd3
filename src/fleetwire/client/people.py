"""The people part of the REST API: logins, tokens, users, projects and roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from fleetwire.client import shapes
from fleetwire.client.asking import BASE, Asking, read, segment


class People(Asking):
    """What `Client` can do about people."""

    def login(self, username: str, password: str, *, code: str | None = None) -> shapes.User:
        """Begin a session by cookie, kept in this client, for making a token with. `code` is of
        the second factor, where there is one.
        """
        given = {"username": username, "password": password}
        if code is not None:
            given["code"] = code
        body = msgspec.json.encode(given)
        answer = self.connection.request("POST", f"{BASE}/login", body=body, repeatable=True)
        began = read(answer, shapes.LoggedIn)
        for line in answer.headers.get_all("Set-Cookie"):
            pair = line.partition(";")[0].strip()
            if pair.startswith(("fleetwire_session=", "__Host-fleetwire_session=")):
                self.connection.cookie = pair
                self.connection.csrf = began.csrf
        return began.user

    def logout(self) -> None:
        """End the session that `login` began."""
        self.connection.request("DELETE", f"{BASE}/login")
        self.connection.cookie = self.connection.csrf = None

    def me(self) -> shapes.User:
        """Return who the server takes us for."""
        return self._get(f"{BASE}/me", shapes.User)

    def tokens(self) -> Iterator[shapes.Token]:
        """Yield the API tokens, newest first, without their secrets."""
        return self._items(f"{BASE}/tokens", shapes.Token)

    def create_token(
        self,
        name: str,
        *,
        expires_in: float | None = None,
        project: str | None = None,
        permissions: Sequence[str] | None = None,
    ) -> shapes.Token:
        """Make an API token, narrowed to a project and to permissions where they are given; its
        secret is in the answer and nowhere else. Not repeated.
        """
        body: dict[str, object] = {"name": name}
        if expires_in is not None:
            body["expires_in"] = expires_in
        if project is not None:
            body["project"] = project
        if permissions is not None:
            body["permissions"] = list(permissions)
        return self._post(f"{BASE}/tokens", body, shapes.Token)

    def delete_token(self, token_id: str) -> None:
        """End an API token."""
        self.connection.request("DELETE", f"{BASE}/tokens/{segment(token_id)}")

    def enrolment_tokens(self) -> Iterator[shapes.EnrolmentToken]:
        """Yield the enrolment tokens, newest first, without their secrets."""
        return self._items(f"{BASE}/enrolment-tokens", shapes.EnrolmentToken)

    def create_enrolment_token(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        expires_in: float | None = None,
        name: str | None = None,
        network: str | None = None,
        approval: bool = False,
        project: str | None = None,
    ) -> shapes.EnrolmentToken:
        """Make a token that one new node shows once; the node gets the labels, and belongs to the
        project. It is good only for names like `name` (with * and ?) and from addresses in
        `network` (CIDR); with `approval` the node has to be approved. Not repeated.
        """
        given = {"name": name, "network": network, "approval": approval or None}
        body: dict[str, object] = {key: one for key, one in given.items() if one is not None}
        if labels:
            body["labels"] = dict(labels)
        if expires_in is not None:
            body["expires_in"] = expires_in
        if project is not None:
            body["project"] = project
        return self._post(f"{BASE}/enrolment-tokens", body, shapes.EnrolmentToken)

    def delete_enrolment_token(self, token_id: str) -> None:
        """End an enrolment token that was not used."""
        self.connection.request("DELETE", f"{BASE}/enrolment-tokens/{segment(token_id)}")

    def users(self) -> Iterator[shapes.Account]:
        """Yield all users by name."""
        return self._items(f"{BASE}/users", shapes.Account)

    def user(self, name: str) -> shapes.Account:
        """Return a user with their roles, by name or id."""
        return self._get(f"{BASE}/users/{segment(name)}", shapes.Account)

    def create_user(
        self,
        name: str,
        *,
        password: str | None = None,
        system_admin: bool = False,
        oidc_subject: str | None = None,
    ) -> shapes.Account:
        """Make a user; without a password the server makes one, which is in the answer and
        nowhere else. Not repeated.
        """
        body: dict[str, object] = {"name": name, "role": "admin" if system_admin else "user"}
        if password is not None:
            body["password"] = password
        if oidc_subject is not None:
            body["oidc_subject"] = oidc_subject
        return self._post(f"{BASE}/users", body, shapes.Account)

    def change_user(self, name: str, *, disabled: bool) -> shapes.Account:
        """Disable or enable a user."""
        path = f"{BASE}/users/{segment(name)}"
        return self._send("PATCH", path, {"disabled": disabled}, shapes.Account)

    def reset_password(self, name: str, password: str | None = None) -> shapes.Account:
        """Give a user a new password; without one the server makes it. Not repeated."""
        body = {} if password is None else {"password": password}
        return self._post(f"{BASE}/users/{segment(name)}/password", body, shapes.Account)

    def end_totp(self, name: str) -> None:
        """End the second factor of a user who has lost it."""
        self.connection.request("DELETE", f"{BASE}/users/{segment(name)}/totp")

    def projects(self) -> Iterator[shapes.Project]:
        """Yield our projects by name; a system admin's are all."""
        return self._items(f"{BASE}/projects", shapes.Project)

    def create_project(self, name: str) -> shapes.Project:
        """Make a project. Not repeated."""
        return self._post(f"{BASE}/projects", {"name": name}, shapes.Project)

    def delete_project(self, name: str) -> None:
        """Delete a project that holds nothing."""
        self.connection.request("DELETE", f"{BASE}/projects/{segment(name)}")

    def members(self, project: str) -> Iterator[shapes.Member]:
        """Yield who has roles in a project."""
        return self._items(f"{BASE}/projects/{segment(project)}/members", shapes.Member)

    def set_roles(
        self, project: str, user: str, roles: Sequence[str], *, was: Sequence[str] | None = None
    ) -> shapes.Member:
        """Give a user exactly these roles in a project; with `was`, only if they had these."""
        path = f"{BASE}/projects/{segment(project)}/members/{segment(user)}"
        body = {"roles": list(roles)} | ({} if was is None else {"was": list(was)})
        return self._send("PUT", path, body, shapes.Member)
