import base64
from datetime import timedelta

import pytest

from squall.faults.http_traffic import KIND
from squall.faults.http_traffic.model import HTTPFault, share
from squall.faults.http_traffic.tests.faults import SELECTOR, spec
from squall.injection.served import served_kinds

SERVED = served_kinds({"HTTPChaos": KIND})[0]
REQUEST = {"target": "Request", "port": 80, "abort": True}
RESPONSE = {"target": "Response", "port": 80, "abort": True}
METHODS = "write one of GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS, TRACE, CONNECT"
SECRET = {
    "secretName": "web",
    "secretNamespace": "shop",
    "certName": "tls.crt",
    "keyName": "tls.key",
}
EVERYTHING = {
    "target": "Response",
    "port": 8080,
    "path": "/api/*",
    "method": "GET",
    "code": 200,
    "request_headers": {"X-Tenant": "a"},
    "response_headers": {"Content-Type": "application/json"},
    "percent": 12.5,
    "seed": 7,
    "delay": "300ms",
    "replace": {
        "headers": {"Server": "x"},
        "body": base64.b64encode(b"{}").decode(),
        "code": 503,
    },
    "patch": {"headers": [["Set-Cookie", "a=b"]], "body": {"type": "JSON", "value": '{"a":1}'}},
    "grpc": {"status": 14, "message": "no", "trailers": {"retry": "no"}, "afterMessages": 3},
    "tls": SECRET,
}


def refused(**fields):
    obj = {"metadata": {"namespace": "d"}, "spec": {**SELECTOR, **fields}}
    return [str(cause) for cause in SERVED.validate(SERVED.default(obj), None)]


def test_every_field_is_taken_and_given_to_the_target():
    assert refused(**EVERYTHING) == []
    told = share(spec(**EVERYTHING), ".", {})
    wire = told.model_dump(mode="json", by_alias=True, exclude_none=True)
    left_out = {"mode", "selector"}
    assert wire == {k: v for k, v in EVERYTHING.items() if k not in left_out} | {"outgoing": False}
    assert HTTPFault.model_validate(wire) == told
    assert told.delay == timedelta(milliseconds=300)


def test_the_least_that_upstream_accepts_is_accepted():
    assert refused(**REQUEST) == []
    assert refused(**RESPONSE, method="PURGE") == []
    assert refused(**(REQUEST | {"abort": False, "delay": "10ms"})) == []


def test_json_that_no_program_can_read_is_refused():
    for value in ('"\\ud800"', "[" * 5000):
        (said,) = refused(**REQUEST, patch={"body": {"type": "JSON", "value": value}})
        assert said.startswith("spec.patch.body.value: Invalid value: ")
    deep = "[" * 100 + "]" * 100
    assert refused(**REQUEST, patch={"body": {"type": "JSON", "value": deep}}) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {**REQUEST, "port": -1},
            "spec.port: Invalid value: -1: port -1 is not supported; it is from 1 to 65535",
        ),
        (
            {**REQUEST, "port": 65536},
            "spec.port: Invalid value: 65536: port 65536 is not supported; it is from 1 to 65535",
        ),
        (
            {"target": "Request", "abort": True},
            "spec.port: Required value: port 0 is not supported; it is from 1 to 65535",
        ),
        (
            {**REQUEST, "target": "Both"},
            ('spec.target: Unsupported value: "Both": supported values: "Request", "Response"'),
        ),
        ({"port": 80, "abort": True}, "spec.target: Required value"),
        (
            {**REQUEST, "method": "get"},
            f'spec.method: Invalid value: "get": method get is not supported; {METHODS}',
        ),
        (
            {**REQUEST, "replace": {"method": "FLY"}},
            f'spec.replace.method: Invalid value: "FLY": method FLY is not supported; {METHODS}',
        ),
        (
            {**REQUEST, "delay": "soon"},
            (
                'spec.delay: Invalid value: "soon": '
                "is not a duration; write it as 10ms, 1.5s or 2h45m"
            ),
        ),
        ({**REQUEST, "delay": "-1s"}, 'spec.delay: Invalid value: "-1s": cannot be negative'),
        (
            {"target": "Request", "port": 80},
            (
                'spec: Invalid value: "object": '
                "does nothing; give one of abort, delay, replace, patch and grpc"
            ),
        ),
        (
            {**RESPONSE, "code": 42},
            (
                "spec.code: Invalid value: 42: "
                "there is no response with code 42; it must be from 100 to 599"
            ),
        ),
        (
            {**RESPONSE, "replace": {"code": 100}},
            (
                "spec.replace.code: Invalid value: 100: "
                "no response ends with code 100; use 200 to 599"
            ),
        ),
        (
            {**REQUEST, "replace": {"code": 500}},
            ("spec.replace.code: Invalid value: 500: a request has none; use target: Response"),
        ),
        (
            {**RESPONSE, "replace": {"path": "/x"}},
            ('spec.replace.path: Invalid value: "/x": a response has none; use target: Request'),
        ),
        (
            {**REQUEST, "replace": {"path": "x"}},
            'spec.replace.path: Invalid value: "x": a path begins with /',
        ),
        (
            {**REQUEST, "replace": {"path": "/a b"}},
            (
                'spec.replace.path: Invalid value: "/a b": '
                "a path has no blanks and no control characters; write %20"
            ),
        ),
        (
            {**REQUEST, "replace": {"body": "{}"}},
            (
                'spec.replace.body: Invalid value: "{}": '
                'spec.replace.body in body must be of type byte: "{}"'
            ),
        ),
        (
            {**REQUEST, "patch": {"headers": [["a"]]}},
            (
                'spec.patch.headers[0]: Invalid value: "array": '
                "must be a name and a value, not ['a']"
            ),
        ),
        (
            {**REQUEST, "patch": {"headers": [["a b", "c"]]}},
            ("spec.patch.headers: Invalid value: \"array\": 'a b' is not a name of a header"),
        ),
        (
            {**REQUEST, "replace": {"headers": {"a": "b\r\nc: d"}}},
            (
                'spec.replace.headers: Invalid value: "object": '
                "the value of 'a' has control characters"
            ),
        ),
        (
            {**REQUEST, "patch": {"body": {"type": "XML", "value": "<a/>"}}},
            ('spec.patch.body.type: Invalid value: "XML": type XML is not supported; use JSON'),
        ),
        (
            {**REQUEST, "patch": {"body": {"type": "JSON", "value": "{"}}},
            (
                'spec.patch.body.value: Invalid value: "{": is not JSON: Expecting property name '
                "enclosed in double quotes: line 1 column 2 (char 1)"
            ),
        ),
        (
            {**REQUEST, "path": "^/api$"},
            (
                'spec.path: Invalid value: "^/api$": '
                "fits no path: they begin with /; `*` and `?` are all that a pattern knows"
            ),
        ),
        (
            {**REQUEST, "path": "/a b"},
            (
                'spec.path: Invalid value: "/a b": '
                "fits no path: they have no blanks and no control characters; write %20"
            ),
        ),
        (
            {**REQUEST, "patch": {"body": {"type": "JSON", "value": '{"a": NaN}'}}},
            'spec.patch.body.value: Invalid value: "{\\"a\\": NaN}": is not JSON: it has no NaN',
        ),
        (
            {**REQUEST, "patch": {"body": {"type": "JSON", "value": "1e999"}}},
            (
                'spec.patch.body.value: Invalid value: "1e999": '
                "is not JSON: Out of range float values are not JSON compliant"
            ),
        ),
        (
            {**REQUEST, "patch": {"body": {"type": "JSON", "value": "[" * 101 + "]" * 101}}},
            (f'spec.patch.body.value: Invalid value: "{"[" * 99}...": is deeper than 100 levels'),
        ),
        (
            {**REQUEST, "grpc": {"status": 14, "afterMessages": 1}},
            "spec.grpc.afterMessages: Invalid value: 1: a request has none; use target: Response",
        ),
        (
            {**REQUEST, "grpc": {"status": 17}},
            "spec.grpc.status: Invalid value: 17: gRPC status codes are 0 to 16",
        ),
        (
            {**REQUEST, "outgoing": True, "tls": SECRET},
            (
                'spec.tls: Invalid value: "object": is the certificate of the target\'s own server;'
                " leave it out with outgoing: the target is made to trust one of ours"
            ),
        ),
        (
            {**REQUEST, "openTls": True},
            (
                "spec.openTls: Invalid value: true: "
                "is for outgoing traffic; of the target's own server, name the tls"
            ),
        ),
        (
            {**REQUEST, "tls": SECRET | {"keyName": ""}},
            "spec.tls.keyName: Required value: names a Secret, or what is in it",
        ),
        (
            {**REQUEST, "percent": 0},
            "spec.percent: Invalid value: 0: 0 hits nothing; it is above 0, up to 100",
        ),
        (
            {**REQUEST, "replace": {"headers": {"Content-Length": "3"}}},
            (
                'spec.replace.headers: Invalid value: "object": Content-Length says how a message '
                "travels, which follows from the message; leave it out"
            ),
        ),
        (
            {**RESPONSE, "patch": {"headers": [["transfer-encoding", "chunked"]]}},
            (
                'spec.patch.headers: Invalid value: "array": transfer-encoding says how a message '
                "travels, which follows from the message; leave it out"
            ),
        ),
        (
            {**REQUEST, "patch": {"headers": [["Host", "b"]]}},
            (
                'spec.patch.headers: Invalid value: "array": a request has one Host; '
                "use replace.headers"
            ),
        ),
        (
            {**REQUEST, "percent": 100.5},
            (
                "spec.percent: Invalid value: 100.5: "
                "spec.percent in body should be less than or equal to 100"
            ),
        ),
    ],
)
def test_what_could_never_act_is_refused_with_its_path(fields, said):
    assert refused(**fields) == [said]
