"""Service accounts as kubelet gives them to pods, on an API server without any kubelet."""

from dataclasses import dataclass
from pathlib import Path

from squall.api.cluster import Cluster, Object, Resource
from testbed.apiserver import ApiServer

_RBAC = "rbac.authorization.k8s.io"
ACCOUNT = Resource("", "v1", "ServiceAccount", "serviceaccounts")
SECRET = Resource("", "v1", "Secret", "secrets")
ROLE = Resource(_RBAC, "v1", "Role", "roles")
ROLE_BINDING = Resource(_RBAC, "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Resource(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Resource(
    _RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)


@dataclass
class Account:
    """One service account, and the folder in which a pod finds it."""

    api: Cluster
    server: ApiServer
    namespace: str
    folder: Path
    name: str = "squall-controller"
    _tokens: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What kubelet sets in every container."""
        host, _, port = self.server.url.removeprefix("https://").rpartition(":")
        return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}

    async def make(self) -> None:
        """Make the account and its folder, without any right."""
        meta = {"name": self.name, "namespace": self.namespace}
        await self.api.create(ACCOUNT, {"metadata": meta})
        self.folder.mkdir()
        (self.folder / "ca.crt").write_bytes(self.server.authority.read_bytes())
        (self.folder / "namespace").write_text(self.namespace)
        self.show(await self.token())

    async def token(self) -> str:
        """Have a token made that is valid until `end` is called for it."""
        self._tokens += 1
        meta = {"name": f"{self.name}-{self._tokens}", "namespace": self.namespace}
        await self.api.create(SECRET, {"metadata": meta})
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={meta['name']}")
        said = self.server.run("create", "token", self.name, "-n", self.namespace, *bound)
        return said.strip()

    async def end(self, number: int) -> None:
        """Make the n-th token worthless, as time does."""
        await self.api.delete(SECRET, self.namespace, f"{self.name}-{number}")

    def show(self, token: str) -> None:
        """Replace the token of the folder."""
        (self.folder / "token").write_text(token)

    async def allow(self, rules: list[Object], namespace: str | None = None) -> None:
        """Grant rights, in one namespace or everywhere."""
        roles, bindings = (
            (ROLE, ROLE_BINDING) if namespace else (CLUSTER_ROLE, CLUSTER_ROLE_BINDING)
        )
        meta = {"name": f"{self.name}-{self.namespace}"} | (
            {"namespace": namespace} if namespace else {}
        )
        await self.api.create(roles, {"metadata": meta, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}
        role = {"apiGroup": _RBAC, "kind": roles.kind, "name": meta["name"]}
        await self.api.create(bindings, {"metadata": meta, "roleRef": role, "subjects": [subject]})
