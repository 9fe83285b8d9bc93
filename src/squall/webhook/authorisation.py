"""May this user do that in every namespace where it acts? Asked with SubjectAccessReviews."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from squall.api.cluster import ApiError, Cluster, Object, Resource
from squall.webhook.reach import GROUP, plural_of, reaches, secrets_of
from squall.webhook.reviews import (
    Review,
    allowed,
    forbidden,
    misdirected,
    undecided,
)
from squall.webhook.verdicts import CREATE, UPDATE

SUBJECT_ACCESS_REVIEW = Resource(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)

ANSWER_SECONDS = 4.0
"""How long the questions of one request may take; API servers wait 5 s for the webhook."""
MOST_QUESTIONS = 100
"""Questions that one request may cause."""
AT_A_TIME = 16


class Question(NamedTuple):
    """May this user do that?"""

    plural: str
    namespace: str
    """Empty: in the whole cluster."""
    secret: str = ""
    """Name of a Secret to be read; empty: an object of this kind is created."""


async def authorise(
    cluster: Cluster,
    review: Review,
    seconds: float = ANSWER_SECONDS,
    slots: asyncio.Semaphore | None = None,
) -> Object:
    """Answer `/validate-auth`: refuse who may not create such objects wherever this one acts.

    What cannot be found out in time is refused.

    Args:
        cluster: where to ask.
        review: of an object of any kind of `chaos-mesh.org`.
        seconds: how long to ask.
        slots: taken for each question while it is asked; shared by all reviews of a process, since
            whoever reaches the webhook can have it ask, and others need the API as well.
    """
    if why := _misdirected(review):
        return misdirected(review, why)
    if review.old is not None and review.object.get("spec") == review.old.get("spec"):
        return allowed(review)  # it reaches no further than before
    questions = list(dict.fromkeys(_questions(review)))
    if len(questions) > MOST_QUESTIONS:
        return forbidden(
            review,
            f"the object acts in {len(questions)} namespaces; rights in at most {MOST_QUESTIONS} "
            "are looked up for one object: split it",
        )
    unknown = f"cannot find out what {review.user.name} may do"
    try:
        async with asyncio.timeout(seconds):
            slots = slots or asyncio.Semaphore(AT_A_TIME)
            denied = await _denied(cluster, review, questions, slots)
    except TimeoutError:
        return undecided(review, f"{unknown}: the API server did not answer within {seconds:g} s")
    except ApiError as refused:
        return undecided(review, f"{unknown}: {refused}")
    return allowed(review) if denied is None else forbidden(review, denied)


def _misdirected(review: Review) -> str:
    if review.group != GROUP:
        return f"only kinds of {GROUP} are reviewed here, not those of {review.group}"
    if review.operation not in {CREATE, UPDATE}:
        return f"{review.operation} is not reviewed here; name CREATE and UPDATE in the rules"
    return ""


def _questions(review: Review) -> Iterator[Question]:
    for reach in reaches(review.kind, review.namespace, review.object):
        for _, namespace in reach.namespaces:
            yield Question(reach.plural, namespace)
    if not review.namespace:
        yield Question(plural_of(review.kind), "")
    # What is read on behalf of its author, its author may read: a Secret could else be stolen.
    for namespace, name in secrets_of(review.object):
        yield Question("secrets", namespace, name)


async def _denied(
    cluster: Cluster, review: Review, questions: list[Question], slots: asyncio.Semaphore
) -> str | None:
    """Ask them all, and say where the first in order was answered with no."""

    async def ask(question: Question) -> bool:
        async with slots:
            answer = await cluster.create(SUBJECT_ACCESS_REVIEW, _asked(review, question))
        return (answer.get("status") or {}).get("allowed") is True

    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(question)) for question in questions]
    except* ApiError as failures:
        raise failures.exceptions[0] from None
    for (_, namespace, secret), task in zip(questions, asked, strict=True):
        if task.result():
            continue
        if secret:
            return f"{review.user.name} may not read the Secret {namespace}/{secret}"
        where = f"namespace {namespace}" if namespace else "cluster"
        return f"{review.user.name} is forbidden on {where}"
    return None


def _asked(review: Review, question: Question) -> Object:
    plural, namespace, secret = question
    attributes = {"verb": "create", "group": GROUP, "version": "*", "resource": plural}
    if secret:
        attributes = {"verb": "get", "group": "", "resource": plural, "name": secret}
    user = review.user
    return {
        "metadata": {},
        "spec": {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": user.extra,
            "resourceAttributes": attributes | ({"namespace": namespace} if namespace else {}),
        },
    }
