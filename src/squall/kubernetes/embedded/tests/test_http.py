import asyncio
import json

import pytest

PODS = "/api/v1/namespaces/default/pods"
CHAOS = "/apis/chaos-mesh.org/v1alpha1/namespaces/default/networkchaos"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
MERGE = {"content-type": "application/merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}


def pod(name="web", **metadata):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, **metadata},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    }


def delay(name="slow", **spec):
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": {"name": name},
        "spec": {
            "action": "delay",
            "mode": "all",
            "selector": {"namespaces": ["default"]},
            "delay": {"latency": "10ms"},
            **spec,
        },
    }


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", "Basic wrong", "Bearer ä"])
async def test_nobody_gets_in_without_the_token(api, token):
    headers = {"authorization": token.encode("latin-1")}
    answer = await api.client.get(PODS, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["reason"] == "Unauthorized"


@pytest.mark.parametrize("path", ["/readyz", "/livez", "/version"])
async def test_health_is_told_to_everybody(api, path):
    assert (await api.client.get(path, headers={"authorization": ""})).status_code == 200


async def test_metrics_need_the_token(api):
    assert (await api.client.get("/metrics")).status_code == 200
    assert (await api.client.get("/metrics", headers={"authorization": ""})).status_code == 401


async def test_both_ways_of_discovery_name_the_same_kinds(api):
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    found = set()
    for path in ("/api", "/apis"):
        answer = await api.client.get(path, headers={"accept": accept})
        assert answer.headers["content-type"] == accept
        for group in answer.json()["items"]:
            for version in group["versions"]:
                found |= {r["resource"] for r in version["resources"]}
    legacy = set()
    groups = (await api.client.get("/apis")).json()["groups"]
    paths = [f"/apis/{g['preferredVersion']['groupVersion']}" for g in groups]
    for path in ["/api/v1", *paths]:
        served = (await api.client.get(path)).json()["resources"]
        legacy |= {r["name"] for r in served if "/" not in r["name"]}
    assert found == legacy
    assert {"pods", "networkchaos", "nodefaults"} <= found


async def test_every_document_of_the_index_is_there(api):
    for entry in (await api.client.get("/openapi/v3")).json()["paths"].values():
        document = (await api.client.get(entry["serverRelativeURL"])).json()
        assert document["paths"]
        assert document["components"]["schemas"]


async def test_an_object_goes_through_its_life(api):
    created = await api.client.post(PODS, json=pod())
    assert created.status_code == 201
    assert (await api.client.get(f"{PODS}/web")).json() == created.json()
    again = await api.client.post(PODS, json=pod())
    assert (again.status_code, again.json()["reason"]) == (409, "AlreadyExists")
    assert (await api.client.delete(f"{PODS}/web")).status_code == 200
    gone = await api.client.get(f"{PODS}/web")
    assert gone.status_code == 404
    assert gone.json()["details"] == {"name": "web", "kind": "pods"}


async def test_defaults_are_filled_in_and_status_is_the_servers(api):
    sent = delay() | {"status": {"experiment": {"desiredPhase": "Run"}}}
    made = (await api.client.post(CHAOS, json=sent)).json()
    assert made["spec"]["direction"] == "to"
    assert "status" not in made


async def test_a_broken_rule_names_its_field(api):
    answer = await api.client.post(CHAOS, json=delay(action="explode"))
    assert answer.status_code == 422
    assert [c["field"] for c in answer.json()["details"]["causes"]] == ["spec.action"]
    assert (await api.client.get(CHAOS)).json()["items"] == []


@pytest.mark.parametrize(
    ("validation", "code", "warned"), [("Strict", 400, False), ("Warn", 201, True), ("", 201, True)]
)
async def test_unknown_fields_are_treated_as_asked(api, validation, code, warned):
    sent = delay(durationn="1s")
    answer = await api.client.post(CHAOS, json=sent, params={"fieldValidation": validation})
    assert answer.status_code == code
    assert ('unknown field \\"spec.durationn\\"' in answer.headers.get("warning", "")) == warned


async def test_a_dry_run_stores_nothing(api):
    answer = await api.client.post(PODS, json=pod(), params={"dryRun": "All"})
    assert answer.status_code == 201
    assert "resourceVersion" not in answer.json()["metadata"]
    before = (await api.client.post(PODS, json=pod())).json()
    patch = json.dumps({"metadata": {"labels": {"x": "1"}}})
    url = f"{PODS}/web?dryRun=All"
    patched = (await api.client.patch(url, content=patch, headers=MERGE)).json()
    assert patched["metadata"]["labels"]["x"] == "1"
    await api.client.delete(url)
    assert (await api.client.get(f"{PODS}/web")).json() == before


@pytest.mark.parametrize(
    ("form", "patch"),
    [
        (MERGE, {"spec": {"containers": [{"name": "main", "image": "y"}]}}),
        (STRATEGIC, {"spec": {"containers": [{"name": "main", "image": "y"}]}}),
        (JSON_PATCH, [{"op": "replace", "path": "/spec/containers/0/image", "value": "y"}]),
    ],
)
async def test_an_object_is_patched_in_every_form(api, form, patch):
    await api.client.post(PODS, json=pod())
    content = json.dumps(patch)
    answer = await api.client.patch(f"{PODS}/web", content=content, headers=form)
    assert answer.json()["spec"]["containers"] == [{"name": "main", "image": "y"}]


async def test_strategic_patches_are_for_kinds_that_clients_know(api):
    await api.client.post(CHAOS, json=delay())
    answer = await api.client.patch(f"{CHAOS}/slow", content="{}", headers=STRATEGIC)
    assert answer.status_code == 415


async def test_an_applied_field_belongs_to_who_applied_it(api):
    async def apply(manager, image, **query):
        wanted = pod()
        wanted["spec"]["containers"][0]["image"] = image
        url, query = f"{PODS}/web", {"fieldManager": manager, **query}
        return await api.client.patch(url, params=query, content=json.dumps(wanted), headers=APPLY)

    assert (await apply("one", "x")).status_code == 201
    refused = await apply("two", "y")
    assert refused.status_code == 409
    cause = refused.json()["details"]["causes"][0]
    assert cause["reason"] == "FieldManagerConflict"
    assert cause["field"] == '.spec.containers[name="main"].image'
    taken = await apply("two", "y", force="true")
    assert taken.json()["spec"]["containers"][0]["image"] == "y"
    again = await apply("two", "y")
    assert again.json() == taken.json()


async def test_a_stale_replacement_is_refused(api):
    made = (await api.client.post(CHAOS, json=delay())).json()
    await api.client.patch(
        f"{CHAOS}/slow", content='{"metadata": {"labels": {"a": "b"}}}', headers=MERGE
    )
    assert (await api.client.put(f"{CHAOS}/slow", json=made)).status_code == 409
    assert (await api.client.put(f"{CHAOS}/slow", json=delay())).status_code == 422


async def test_pages_make_up_the_whole_list(api):
    for number in range(5):
        await api.client.post(PODS, json=pod(f"p{number}"))
    found, query = [], {"limit": 2}
    while True:
        page = (await api.client.get(PODS, params=query)).json()
        found += [o["metadata"]["name"] for o in page["items"]]
        if "continue" not in page["metadata"]:
            break
        query["continue"] = page["metadata"]["continue"]
    assert found == [f"p{number}" for number in range(5)]


async def test_a_table_has_the_columns_of_its_kind(api):
    await api.client.post(PODS, json=pod())
    table = (await api.client.get(PODS, headers=TABLE)).json()
    shown = [c["name"] for c in table["columnDefinitions"] if c["priority"] == 0]
    assert shown == ["Name", "Ready", "Status", "Restarts", "Age"]
    row = table["rows"][0]
    assert row["cells"][:4] == ["web", "0/1", "Pending", "0"]
    assert row["object"]["kind"] == "PartialObjectMetadata"


async def lines(api, path, number, **query):
    query = {"watch": "true", "timeoutSeconds": "20", **query}
    seen = []
    async with asyncio.timeout(10), api.client.stream("GET", path, params=query) as stream:
        async for line in stream.aiter_lines():
            seen.append(json.loads(line))
            if len(seen) == number:
                break
    return [(e["type"], e["object"]) for e in seen]


async def test_a_watch_resumes_from_a_version(api):
    first = (await api.client.post(PODS, json=pod("a"))).json()
    await api.client.post(PODS, json=pod("b"))
    await api.client.delete(f"{PODS}/a")
    version = first["metadata"]["resourceVersion"]
    seen = await lines(api, PODS, 2, resourceVersion=version)
    told = [(change, o["metadata"]["name"]) for change, o in seen]
    assert told == [("ADDED", "b"), ("DELETED", "a")]


@pytest.mark.parametrize("version", ["1", "999999"])
async def test_a_watch_from_a_version_that_is_not_there_is_expired(api, version):
    api.objects.store._forgotten["pods"] = 3
    ((change, status),) = await lines(api, PODS, 1, resourceVersion=version)
    assert (change, status["code"], status["reason"]) == ("ERROR", 410, "Expired")


async def test_a_watch_marks_where_it_stands(api):
    seen = await lines(api, PODS, 1, allowWatchBookmarks="true")
    assert seen[0][0] == "BOOKMARK"
    assert seen[0][1]["metadata"]["resourceVersion"] == str(api.objects.store.version)


async def test_a_stop_ends_open_watches_at_once(api):
    query = {"watch": "true"}
    async with asyncio.timeout(2), api.client.stream("GET", PODS, params=query) as stream:
        stopping = asyncio.create_task(api.server.stop())
        assert [part async for part in stream.aiter_bytes()] == []
        await stopping


async def test_deleting_a_collection_deletes_what_is_selected(api):
    for name in ("a", "b"):
        await api.client.post(PODS, json=pod(name))
    await api.client.delete(PODS, params={"labelSelector": "app=a"})
    left = (await api.client.get(PODS)).json()["items"]
    assert [o["metadata"]["name"] for o in left] == ["b"]


async def test_logs_are_cut_as_asked(api):
    await api.client.post(PODS, json=pod())
    whole = await api.client.get(f"{PODS}/web/log")
    assert whole.text == "one\ntwo\nthree\n"
    tail = await api.client.get(f"{PODS}/web/log?tailLines=1&limitBytes=3")
    assert tail.text == "thr"
    other = await api.client.get(f"{PODS}/web/log?container=other")
    assert other.status_code == 400


async def test_a_runtime_that_refuses_is_heard_as_a_status(api):
    silent = pod()
    silent["spec"]["containers"][0]["name"] = "silent"
    await api.client.post(PODS, json=silent)
    refused = await api.client.get(f"{PODS}/web/log")
    assert (refused.status_code, refused.json()["reason"]) == (400, "BadRequest")


async def test_a_client_that_speaks_spdy_is_told_what_it_needs(api):
    await api.client.post(PODS, json=pod())
    answer = await api.client.post(f"{PODS}/web/exec?command=true")
    assert answer.status_code == 400
    assert "WebSocket" in answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/apis/nobody.dev/v1/things", 404),
        ("GET", f"{PODS}/web/nothing", 404),
        ("GET", "/api/v1/pods/web", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("PUT", PODS, 405),
        ("GET", f"{PODS}?limit=many", 400),
        ("GET", f"{PODS}?continue=%21", 400),
        ("GET", f"{PODS}?fieldSelector=spec.color%3Dred", 400),
        ("GET", f"{PODS}?labelSelector=%3D%3D", 400),
        ("POST", PODS, 400),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(api, method, path, code):
    answer = await api.client.request(method, path)
    assert answer.status_code == code
    assert answer.json()["kind"] == "Status"


async def test_a_body_that_is_too_large_or_too_deep_is_refused(api):
    large = await api.client.post(PODS, content=b" " * (3 * 1024 * 1024 + 1))
    assert large.status_code == 413
    deep = await api.client.post(PODS, content=b'{"spec":' * 900 + b"1" + b"}" * 900)
    assert deep.status_code in (400, 422)
