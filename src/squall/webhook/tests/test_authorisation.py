import asyncio
from dataclasses import replace

import pytest

from squall.api.cluster import ApiError, Unreachable
from squall.api.fake_cluster import FakeCluster
from squall.webhook.authorisation import AT_A_TIME, MOST_QUESTIONS, authorise
from squall.webhook.tests.asking import NETWORK, review, said


class Authorities(FakeCluster):
    """An API server that answers SubjectAccessReviews: `ada` may act in some namespaces."""

    def __init__(self, *may):
        super().__init__()
        self.may, self.asked, self.pause = may, [], asyncio.Event()
        self.pause.set()
        self.busy = self.busiest = 0

    async def create(self, resource, obj):
        self._called("create", resource, "")
        self.asked.append(obj["spec"])
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        await asyncio.sleep(0)
        await self.pause.wait()
        self.busy -= 1
        where = obj["spec"]["resourceAttributes"]
        found = (where["resource"], where.get("namespace", "")) in self.may
        return {"status": {"allowed": found}}


def network(*namespaces, **more):
    return NETWORK | {"selector": {"namespaces": list(namespaces)}, **more}


def status_of(answer):
    status = answer["response"]["status"]
    return status["code"], status["message"]


async def test_who_may_create_it_wherever_it_acts_is_allowed():
    authorities = Authorities(("networkchaos", "a"), ("networkchaos", "b"))
    spec = network("a", "b", target={"mode": "all", "selector": {"namespaces": ["a"]}})
    assert said(await authorise(authorities, review(spec=spec))) == ""
    assert sorted(asked["resourceAttributes"]["namespace"] for asked in authorities.asked) == [
        "a",
        "b",
    ]
    assert authorities.asked[0] == {
        "user": "ada",
        "uid": "7",
        "groups": ["devs"],
        "extra": {"scope": ["a"]},
        "resourceAttributes": {
            "verb": "create",
            "group": "chaos-mesh.org",
            "version": "*",
            "resource": "networkchaos",
            "namespace": "a",
        },
    }


async def test_a_namespace_without_rights_forbids_it_in_upstreams_words():
    authorities = Authorities(("networkchaos", "a"))
    answer = await authorise(authorities, review(spec=network("a", "b")))
    assert status_of(answer) == (403, "ada is forbidden on namespace b")


async def test_everywhere_needs_rights_everywhere():
    answer = await authorise(Authorities(), review(spec=network("")))
    assert status_of(answer) == (403, "ada is forbidden on cluster")
    answer = await authorise(Authorities(), review("RemoteCluster", {}, namespace=""))
    assert status_of(answer) == (403, "ada is forbidden on cluster")


async def test_a_schedule_needs_rights_to_what_it_makes():
    spec = {"schedule": "@hourly", "type": "NetworkChaos", "networkChaos": network("a")}
    few = Authorities(("networkchaos", "here"))
    answer = await authorise(few, review("Schedule", spec))
    assert status_of(answer) == (403, "ada is forbidden on namespace a")
    enough = Authorities(("networkchaos", "here"), ("networkchaos", "a"))
    assert said(await authorise(enough, review("Schedule", spec))) == ""


async def test_an_update_that_leaves_the_spec_alone_asks_nobody():
    authorities = Authorities()
    spec = network("b")
    assert said(await authorise(authorities, review(spec=spec, old=spec))) == ""
    assert authorities.asked == []
    assert "namespace b" in said(await authorise(authorities, review(spec=spec, old=NETWORK)))


async def test_questions_are_asked_side_by_side_but_not_all_at_once():
    names = [f"n{number}" for number in range(MOST_QUESTIONS)]
    authorities = Authorities(*(("networkchaos", name) for name in names))
    assert said(await authorise(authorities, review(spec=network(*names, *names)))) == ""
    assert (len(authorities.asked), authorities.busiest) == (MOST_QUESTIONS, AT_A_TIME)


async def test_too_many_questions_are_refused_before_any_is_asked():
    authorities = Authorities()
    names = [f"n{number}" for number in range(MOST_QUESTIONS + 1)]
    assert "split it" in said(await authorise(authorities, review(spec=network(*names))))
    assert authorities.asked == []


async def test_what_nobody_answers_is_refused_in_time():
    authorities = Authorities(("networkchaos", "a"))
    authorities.pause.clear()
    answer = await authorise(authorities, review(spec=network("a")), seconds=0.05)
    assert status_of(answer) == (
        503,
        "cannot find out what ada may do: the API server did not answer within 0.05 s",
    )


@pytest.mark.parametrize("error", [Unreachable(0, "", "gone"), ApiError(403, "", "gone")])
async def test_what_cannot_be_asked_is_refused(error):
    def fails(*_):
        raise error

    authorities = Authorities(("networkchaos", "a"))
    authorities.on_call = fails
    answer = await authorise(authorities, review(spec=network("a", "b")))
    assert status_of(answer) == (503, "cannot find out what ada may do: gone")


async def test_other_groups_are_not_judged_here():
    other = replace(review(spec=network("a")), group="apps", kind="Deployment")
    assert "not those of apps" in said(await authorise(Authorities(), other))


HTTP = {
    "selector": {"namespaces": ["a"]},
    "tls": {"secretName": "web", "secretNamespace": "vault", "certName": "c", "keyName": "k"},
}


class Readers(Authorities):
    """`ada` may read some Secrets, too."""

    async def create(self, resource, obj):
        where = obj["spec"]["resourceAttributes"]
        if where["resource"] != "secrets":
            return await super().create(resource, obj)
        self.asked.append(obj["spec"])
        allowed = (where["verb"], where["namespace"], where["name"]) in self.may
        return {"status": {"allowed": allowed}}


async def test_a_secret_is_read_for_nobody_who_may_not_read_it():
    acts = ("httpchaos", "a")
    asked = review(kind="HTTPChaos", spec=HTTP)
    assert said(await authorise(Readers(acts, ("get", "vault", "web")), asked)) == ""
    answer = await authorise(Readers(acts, ("get", "vault", "other")), asked)
    assert status_of(answer) == (403, "ada may not read the Secret vault/web")


async def test_a_secret_of_what_is_carried_is_asked_for_too():
    readers = Readers(("schedules", "here"), ("httpchaos", "here"), ("httpchaos", "a"))
    asked = review(kind="Schedule", spec={"type": "HTTPChaos", "httpChaos": HTTP})
    assert "may not read the Secret vault/web" in said(await authorise(readers, asked))
