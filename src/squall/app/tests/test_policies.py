import pytest

from squall.api.cluster import CONFIG_MAP
from squall.api.fake_cluster import FakeCluster
from squall.api.policy import Policy
from squall.app.policies import policy_of, publish, published
from squall.errors import InvalidFault


async def test_what_is_published_is_read_by_whoever_previews():
    cluster = FakeCluster()
    assert await published(cluster) == Policy()
    for policy in (Policy(allow_host_network=True, opt_in_labels={"a": "b"}), Policy()):
        await publish(cluster, policy)
        assert await published(cluster) == policy


async def test_half_a_policy_is_none(tmp_path):
    cluster = FakeCluster()
    file = tmp_path / "policy.yaml"
    for text in ("mostPercent: [", "mostPercent: 200"):
        file.write_text(text)
        with pytest.raises(InvalidFault, match=r"policy.yaml is no policy"):
            policy_of(file)
        meta = {"name": "squall-policy", "namespace": "squall"}
        cluster.objects.clear()
        await cluster.create(CONFIG_MAP, {"metadata": meta, "data": {"policy.yaml": text}})
        with pytest.raises(InvalidFault, match="ConfigMap squall-policy is no policy"):
            await published(cluster)


def test_a_file_is_read_and_none_means_no_limits(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("protectedNamespaces: [kube-system]")
    assert policy_of(file) == Policy(protected_namespaces=["kube-system"])
    assert policy_of(None) == Policy()
