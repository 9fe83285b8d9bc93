"""What is filled in and what is refused, without asking anybody; pure."""

from collections.abc import Sequence

from squall.api.cluster import Object
from squall.api.policy import Policy
from squall.api.served import Cause, ServedKind
from squall.webhook.json_patch import difference
from squall.webhook.limits import refusals
from squall.webhook.reach import reaches
from squall.webhook.reviews import Review, allowed, misdirected, refused

CREATE, UPDATE = "CREATE", "UPDATE"


def fill_in(kind: ServedKind, review: Review) -> Object:
    """Answer a mutating webhook: an object with its defaults.

    A manifest that is applied again after its defaults were written, or after an upgrade that
    brought new ones, means the object that is there: nothing changes, and nobody fights.
    """
    if why := _misdirected(kind, review):
        return misdirected(review, why)
    sent = review.object.get("spec")
    spec = kind.default(_placed(review, review.object)).get("spec")
    if review.old is not None and spec == kind.default(_placed(review, review.old)).get("spec"):
        spec = review.old.get("spec")
    if not isinstance(sent, dict):
        return allowed(review)  # wrong, and not for defaults to mend
    return allowed(review, list(difference(sent, spec, "/spec")))


def judge(kind: ServedKind, policy: Policy, review: Review) -> Object:
    """Answer a validating webhook: may it be stored as it is?"""
    if why := _misdirected(kind, review):
        return misdirected(review, why)
    obj = kind.default(_placed(review, review.object))
    old = None if review.old is None else kind.default(_placed(review, review.old))
    causes: Sequence[Cause] = kind.validate(obj, old)
    if not causes and old is None:  # what was accepted once stays, whatever the policy is now
        reached = reaches(review.kind, review.namespace, obj)
        causes = list(refusals(policy, reached))
    return refused(review, causes) if causes else allowed(review)


def _misdirected(kind: ServedKind, review: Review) -> str:
    resource = kind.resource
    if (review.group, review.kind) != (resource.group, resource.kind):
        found = f"{review.kind}.{review.group}"
        return f"this path is for {resource.kind}.{resource.group}, and {found} was sent to it"
    if review.operation not in {CREATE, UPDATE}:
        return f"{review.operation} is not reviewed here; name CREATE and UPDATE in the rules"
    return ""


def _placed(review: Review, obj: Object) -> Object:
    """Give an object its namespace, which a manifest may leave to the request."""
    metadata = obj.get("metadata")
    if not review.namespace or not isinstance(metadata, dict):
        return obj
    return obj | {"metadata": metadata | {"namespace": review.namespace}}
