import json

import yaml

from squall.api.policy import Policy
from squall.installation.manifests import as_yaml, images, objects
from squall.installation.resources import STAGES, resource_of
from squall.installation.settings import Settings


def test_nothing_of_a_placeholder_is_left():
    for policy in (Policy(), Policy(target_namespace="shop", opt_in_namespaces=True)):
        settings = Settings("chaos", "registry.example/squall:9", 30, "pause:1", policy)
        text = as_yaml(objects(settings))
        assert "placeholder" not in text
        assert "--lease-seconds=30" in text
        assert "registry.example/squall:9" in text


def test_what_stands_on_something_comes_after_it():
    order = [resources for _, resources in STAGES]
    found = [
        next(rank for rank, resources in enumerate(order) if resource_of(obj) in resources)
        for obj in objects(Settings())
    ]
    assert found == sorted(found)
    assert found[0] == 0
    assert set(found) == set(range(len(order)))


def test_one_namespace_alone_needs_no_right_over_pods_of_others():
    policy = Policy(target_namespace="shop")
    roles = [o for o in objects(Settings(policy=policy)) if o["kind"] == "ClusterRole"]
    assert roles
    assert not [o for o in roles if any("pods" in rule["resources"] for rule in o["rules"])]


def test_agents_may_read_namespaces_only_where_these_opt_in():
    def readable(policy):
        found = objects(Settings(policy=policy))
        role = next(o for o in found if (o["kind"], o["metadata"]["name"]) == KEY)
        return "namespaces" in json.dumps(role["rules"])

    assert readable(Policy(opt_in_namespaces=True))
    assert not readable(Policy())


KEY = ("ClusterRole", "squall-agent")


def test_another_policy_starts_processes_anew():
    def checksum(policy):
        found = objects(Settings(policy=policy))
        pod = next(o for o in found if o["kind"] == "Deployment")["spec"]["template"]
        return pod["metadata"]["annotations"]["checksum/policy"]

    assert checksum(Policy()) != checksum(Policy(most_percent=50))


def test_the_policy_is_written_as_controller_and_agents_read_it():
    policy = Policy(most_percent=50, opt_in_labels={"chaos": "yes"})
    found = objects(Settings(policy=policy))
    text = next(o for o in found if o["kind"] == "ConfigMap")["data"]["policy.yaml"]
    assert Policy.model_validate(yaml.safe_load(text)) == policy


def test_every_image_is_listed_once():
    assert images(objects(Settings(image="a:1", pause_image="b:2"))) == ["a:1", "b:2"]


def test_a_long_namespace_leaves_names_that_the_api_takes():
    settings = Settings("n" * 60, policy=Policy(target_namespace="shop"))
    services = [o for o in objects(settings) if o["kind"] == "Service"]
    assert all(len(o["metadata"]["name"]) <= 63 for o in services)
