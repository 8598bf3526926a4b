"""What each address of the tests' Hub answers: accounts, repositories, uploads, downloads. Used by hub_server.py."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qs

LARGE = (".safetensors", ".gguf", ".bin", ".png")  # what this Hub keeps in LFS


class Blob(NamedTuple):
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


class Commit(NamedTuple):
    oid: str
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    sdk: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)  # of the branch main
    branches: dict[str, list[Commit]] = field(default_factory=dict)  # the others
    tags: dict[str, Commit] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, Blob], branch: str = "main") -> Commit:
        commits = self.branches.get(branch, self.commits)
        oid = hashlib.sha1(f"{title} {len(commits)} {sorted(files)}".encode()).hexdigest()
        commits.append(Commit(oid, title, files))
        return commits[-1]


class Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = ""):
        self.status, self.code, self.message = status, code, message


class Pages:
    """The answer to one request, from the state of `hub`."""

    def __init__(self, hub, method: str, headers, body: bytes):
        self.hub, self.method, self.headers, self.body = hub, method, headers, body

    def answer(self, path: str) -> tuple[int, dict, bytes]:
        for method, pattern, action in ROUTES:
            if self.method in method and (found := re.fullmatch(pattern, path)):
                result = getattr(self, action)(**found.groupdict())
                return (
                    result
                    if isinstance(result, tuple)
                    else (200, {"Content-Type": "application/json"}, json.dumps(result).encode())
                )
        raise Refused(404, "", f"no such page: {path}")

    # -- who may do what

    def user(self, write: bool = False) -> dict | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = self.hub.users.get(token)
        if token and not user:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        if write and (not user or user["role"] == "read"):
            raise Refused(403 if user else 401, "", "You need write access")
        return user

    def repo(self, kind: str, name: str, write: bool = False) -> Repo:
        user, repo = self.user(write), self.hub.repos.get((kind or "model", name))
        mine = user and name.split("/")[0] in (user["name"], *user.get("orgs", {}))
        if repo is None or (repo.private and not mine):
            raise Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not mine:
            raise Refused(403, "", "You don't have the rights to write here")
        return repo

    def at(self, repo: Repo, revision: str | None) -> Commit:
        if revision in repo.tags:
            return repo.tags[revision]
        if revision in repo.branches:
            return repo.branches[revision][-1]
        for commit in reversed([*sum(repo.branches.values(), []), *repo.commits]):
            if revision in (None, "main", commit.oid):
                return commit
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    # -- accounts and repositories

    def whoami(self):
        user = self.user()
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        orgs = [{"name": org, "roleInOrg": role} for org, role in user.get("orgs", {}).items()]
        access = {
            "displayName": "test",
            "role": user["role"],
            "fineGrained": user.get("fineGrained"),
        }
        return {
            "type": "user",
            "name": user["name"],
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": access},
        }

    def create(self):
        want = json.loads(self.body)
        kind, user = want.get("type", "model"), self.user(write=True)
        name = f"{want['organization'] or user['name']}/{want['name']}"
        if name.split("/")[0] not in {user["name"], *user.get("orgs", {})}:
            raise Refused(
                403, "", f"You don't have the rights to create a {kind} under this namespace"
            )
        if (kind, name) in self.hub.repos:
            return 409, {}, json.dumps({"error": "exists", "url": self.page(kind, name)}).encode()
        variables = {entry["key"]: entry["value"] for entry in want.get("variables", [])}
        private = want.get("visibility") == "private" or bool(want.get("private"))
        self.hub.repos[kind, name] = repo = Repo(
            private=private, sdk=want.get("sdk", ""), variables=variables
        )
        repo.commit(
            "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}
        )
        return {"url": self.page(kind, name), "name": name}

    def page(self, kind: str, name: str) -> str:
        return f"{self.hub.url}/{'spaces/' if kind == 'space' else ''}{name}"

    def auth_check(self, kind, name, write=None):
        self.repo(kind, name, write=bool(write))
        return {}

    def info(self, kind, name, revision=None):
        repo = self.repo(kind, name)
        commit = self.at(repo, revision)
        siblings = [
            {"rfilename": path, "blobId": blob.git, **sizes(blob)}
            for path, blob in commit.files.items()
        ]
        return {
            "id": name,
            "sha": commit.oid,
            "private": repo.private,
            "gated": repo.gated,
            "siblings": siblings,
        }

    def tree(self, kind, name, revision, folder=None):
        files = self.at(self.repo(kind, name), revision).files
        inside = {path: blob for path, blob in files.items() if path.startswith(folder or "")}
        if folder and not inside:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist")
        return [
            {"type": "file", "path": path, "oid": blob.git, **sizes(blob)}
            for path, blob in inside.items()
        ]

    def paths(self, kind, name, revision):
        files = self.at(self.repo(kind, name), revision).files
        wanted = parse_qs(self.body.decode())["paths"]
        return [
            {"type": "file", "path": path, "oid": blob.git, **sizes(blob)}
            for path, blob in files.items()
            if path in wanted
        ]

    def variables(self, kind, name):
        repo = self.repo(kind, name, write=self.method == "POST")
        if self.method == "POST":
            want = json.loads(self.body)
            repo.variables[want["key"]] = want["value"]
        return {
            key: {"value": value, "updatedAt": "2026-01-01T00:00:00.000Z"}
            for key, value in repo.variables.items()
        }

    def branch(self, kind, name, revision):
        repo = self.repo(kind, name, write=True)
        if revision in repo.branches or revision == "main":
            raise Refused(409, "", "Reference already exists")
        repo.branches[revision] = list(repo.commits)
        return {}

    def refs(self, kind, name):
        repo = self.repo(kind, name)
        tips = {"main": repo.commits, **repo.branches}
        heads = [named(branch, commits[-1], "heads") for branch, commits in tips.items()]
        tags = [named(tag, commit, "tags") for tag, commit in repo.tags.items()]
        return {"branches": heads, "converts": [], "tags": tags}

    def tag(self, kind, name, revision):
        repo, wanted = self.repo(kind, name, write=True), json.loads(self.body)["tag"]
        if wanted in repo.tags:
            raise Refused(409, "", "Reference already exists")
        repo.tags[wanted] = self.at(repo, revision)
        return {}

    # -- uploads

    def validate_yaml(self):
        want = json.loads(self.body)
        if not want["content"].startswith("---\n"):
            return {"warnings": [{"message": "empty or missing yaml metadata"}], "errors": []}
        return {"warnings": [], "errors": []}

    def preupload(self, kind, name, revision):
        files = self.at(self.repo(kind, name, write=True), revision).files
        return {
            "files": [
                self.mode(file["path"], files.get(file["path"]))
                for file in json.loads(self.body)["files"]
            ]
        }

    def mode(self, path: str, old: Blob | None) -> dict:
        known = {"oid": old.sha256 if old.lfs else old.git} if old else {}
        return {
            "path": path,
            "uploadMode": "lfs" if path.endswith(LARGE) else "regular",
            "shouldIgnore": False,
            **known,
        }

    def batch(self, kind, name):
        self.repo(kind, name, write=True)
        upload = {"verify": {"href": f"{self.hub.verify_at}/lfs-verify"}}
        objects = []
        for want in json.loads(self.body)["objects"]:
            action = {
                "actions": {"upload": {"href": f"{self.hub.cdn}/lfs/{want['oid']}"}, **upload}
            }
            objects.append({**want, **({} if want["oid"] in self.hub.objects else action)})
        return {"transfer": "basic", "objects": objects}

    def receive(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "", "the content has another hash")
        self.hub.objects[oid] = self.body
        return {}

    def verify(self):
        return {}

    def commit(self, kind, name, revision):
        repo = self.repo(kind, name, write=True)
        head = self.at(repo, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit", head.oid) != head.oid:
            raise Refused(412, "", "the branch moved since the parent commit")
        files = dict(head.files)
        for line in lines[1:]:
            value, path = line["value"], line["value"]["path"]
            if line["key"] == "file":
                files[path] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                files[path] = Blob(self.hub.objects[value["oid"]], True)
            else:
                del files[path]
        new = repo.commit(header["summary"], files, revision)
        return {
            "success": True,
            "commitOid": new.oid,
            "commitUrl": f"{self.page(kind, name)}/commit/{new.oid}",
        }

    # -- downloads

    def resolve(self, name, revision, path, kind="model"):
        repo = self.repo(kind, name)
        commit = self.at(repo, revision)
        user = self.user()
        if repo.gated and not (user and name.split("/")[0] == user["name"]):
            raise Refused(
                403 if user else 401, "GatedRepo", f"Access to model {name} is restricted"
            )
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            return (
                404,
                {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"},
                b"",
            )
        blob = commit.files[path]
        if not blob.lfs:
            return 200, {**headers, "ETag": f'"{blob.git}"'}, blob.data
        self.hub.objects[blob.sha256] = blob.data
        linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        return 302, {**headers, **linked, "Location": f"{self.hub.cdn}/lfs/{blob.sha256}"}, b""

    def send(self, oid):
        data = self.hub.objects[oid]
        if span := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(span[1])
            return (
                206,
                {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"},
                data[start:],
            )
        return 200, {}, data


def named(name: str, commit: Commit, kind: str) -> dict:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit.oid}


def sizes(blob: Blob) -> dict:
    size = len(blob.data)
    lfs = {"lfs": {"oid": blob.sha256, "sha256": blob.sha256, "size": size, "pointerSize": 134}}
    return {"size": size, **(lfs if blob.lfs else {})}


REPO = r"/api/(?P<kind>model|space|dataset)s/(?P<name>[^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", REPO + r"(/revision/(?P<revision>.+))?", "info"),
    ("GET", REPO + r"/auth-check(?P<write>/write)?", "auth_check"),
    ("GET", REPO + r"/tree/(?P<revision>[^/]+)/?(?P<folder>.+)?", "tree"),
    ("POST", REPO + r"/paths-info/(?P<revision>[^/]+)", "paths"),
    ("GET POST", REPO + r"/variables", "variables"),
    ("POST", REPO + r"/branch/(?P<revision>.+)", "branch"),
    ("GET", REPO + r"/refs", "refs"),
    ("POST", REPO + r"/tag/(?P<revision>.+)", "tag"),
    ("POST", REPO + r"/preupload/(?P<revision>.+)", "preupload"),
    ("POST", REPO + r"/commit/(?P<revision>.+)", "commit"),
    (
        "POST",
        r"/((?P<kind>space|dataset)s/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
        "batch",
    ),
    ("PUT", r"/lfs/(?P<oid>\w+)", "receive"),
    ("GET HEAD", r"/lfs/(?P<oid>\w+)", "send"),
    ("POST", r"/lfs-verify", "verify"),
    (
        "GET HEAD",
        r"/((?P<kind>space|dataset)s/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        "resolve",
    ),
]
