"""AdmissionReviews as API servers send them."""

import json
from base64 import b64decode

from squall.webhook.reviews import decode

NETWORK = {
    "action": "delay",
    "mode": "all",
    "selector": {"namespaces": ["here"]},
    "delay": {"latency": "10ms", "jitter": "0ms", "correlation": "0"},
    "direction": "to",
}


def asked(kind="NetworkChaos", spec=None, old=None, **request):
    """The body of a request about an object in the namespace `here`."""
    metadata = {"name": "x", "namespace": "here"}
    return json.dumps(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5",
                "kind": {"group": "chaos-mesh.org", "version": "v1alpha1", "kind": kind},
                "name": "x",
                "namespace": "here",
                "operation": "CREATE" if old is None else "UPDATE",
                "userInfo": {
                    "username": "ada",
                    "uid": "7",
                    "groups": ["devs"],
                    "extra": {"scope": ["a"]},
                },
                "object": {"kind": kind, "metadata": metadata, "spec": spec or {}},
                "oldObject": old and {"kind": kind, "metadata": metadata, "spec": old},
                **request,
            },
        }
    ).encode()


def review(kind="NetworkChaos", spec=None, old=None, **request):
    return decode(asked(kind, spec, old, **request))


def patch_of(answer):
    response = answer["response"]
    return json.loads(b64decode(response["patch"])) if "patch" in response else []


def said(answer):
    response = answer["response"]
    return "" if response["allowed"] else response["status"]["message"]
