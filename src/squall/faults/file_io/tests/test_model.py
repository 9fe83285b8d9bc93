import pytest

from squall.faults.file_io import KIND
from squall.faults.file_io.model import FileFault, IOChaosSpec, share
from squall.injection.served import served_kinds
from squall.injection.world.files import Attributes, Mistake, Moment

SERVED = served_kinds({"IOChaos": KIND})[0]
SELECTOR = {"selector": {}, "mode": "one"}
SLOW = {"action": "latency", "delay": "100ms", "volumePath": "/data"}


def refused(**fields):
    spec = {name: value for name, value in {**SELECTOR, **fields}.items() if value is not None}
    obj = {"metadata": {"namespace": "d"}, "spec": spec}
    return [str(cause) for cause in SERVED.validate(SERVED.default(obj), None)]


def shared(**fields):
    return share(IOChaosSpec.model_validate({**SELECTOR, **fields}), ".", {})


def test_the_default_of_percent_is_written_into_the_object():
    spec = SERVED.default({"metadata": {"namespace": "d"}, "spec": {**SELECTOR, **SLOW}})["spec"]
    assert spec["percent"] == 100
    assert spec["selector"] == {"namespaces": ["d"]}


def test_a_target_is_told_what_its_action_needs_and_no_more():
    fault = shared(**SLOW, errno=5, path="/data/*.log", methods=["WRITE", "read"], percent=40)
    assert fault == FileFault(
        action="latency",
        volume="/data",
        path="/data/*.log",
        methods=("read", "write"),
        percent=40,
        delay_us=100_000,
    )
    fault = shared(action="fault", errno=28, volumePath="/d")
    assert fault.errno == 28
    assert {"open", "read", "fsync"} <= set(fault.methods)
    assert not {"release", "forget", "access"} & set(fault.methods)
    wrong = {"filling": "random", "maxOccurrences": 3, "maxLength": 10}
    assert shared(action="mistake", mistake=wrong, volumePath="/d").mistake == Mistake(
        "random", 3, 10
    )
    assert shared(action="noSpace", space="64MB", volumePath="/d").space == 64_000_000
    assert shared(action="noSpace", volumePath="/d").space == 0
    assert shared(action="powerLoss", volumePath="/d") == FileFault(action="powerLoss", volume="/d")


def test_only_requests_that_the_action_can_act_on_are_named():
    wrong = {"action": "mistake", "mistake": {}, "volumePath": "/d"}
    assert shared(**wrong).methods == ("read", "write")
    assert shared(**wrong, methods=["READ", "getattr"]).methods == ("read",)
    assert shared(**SLOW).methods == ()
    assert shared(**SLOW, methods=["release", "access"]).methods == ("release",)


def test_attributes_reach_the_agent_as_they_were_written():
    attr = {"kind": "directory", "perm": 72, "size": 7, "mtime": {"sec": 1, "nsec": 2}}
    fault = shared(action="attrOverride", attr=attr, volumePath="/d")
    assert fault.attributes == Attributes(size=7, mtime=Moment(1, 2), kind="directory", perm=72)
    assert FileFault.model_validate(fault.model_dump(mode="json", by_alias=True)) == fault


@pytest.mark.parametrize(
    ("written", "meant"), [("/data/", "/data"), ("//a///b//", "/a/b"), ("/a", "/a")]
)
def test_a_volume_is_written_as_the_kernel_does(written, meant):
    assert shared(**{**SLOW, "volumePath": written}).volume == meant


@pytest.mark.parametrize(
    "fields",
    [
        SLOW,
        {**SLOW, "path": "/data/**/*"},
        {**SLOW, "path": "**/*.log"},
        {**SLOW, "path": "/data"},
        {**SLOW, "path": "/dat*/x"},
        {**SLOW, "methods": []},
        {**SLOW, "methods": ["READ", "Write"]},
        {**SLOW, "percent": 0},
        {**SLOW, "duration": ""},
        {"action": "fault", "errno": 5, "volumePath": "/data", "delay": ""},
        {"action": "mistake", "mistake": {"filling": "zero"}, "volumePath": "/data"},
        {"action": "attrOverride", "attr": {"uid": 4294967295}, "volumePath": "/data"},
        {"action": "noSpace", "volumePath": "/data"},
        {"action": "powerLoss", "volumePath": "/data"},
    ],
)
def test_what_can_act_is_accepted(fields):
    assert refused(**fields) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"action": "fault", "volumePath": "/data"},
            "spec.errno: Required value: action fault: errno 0 is not supported",
        ),
        (
            {"action": "fault", "errno": 0, "volumePath": "/data"},
            "spec.errno: Invalid value: 0: action fault: errno 0 is not supported",
        ),
        (
            {"action": "fault", "errno": 512, "volumePath": "/data"},
            (
                "spec.errno: Invalid value: 512: is no error number; errno(3) lists those from 1 "
                "to 133, as 5 (EIO)"
            ),
        ),
        (
            {**SLOW, "percent": 101},
            "spec.percent: Invalid value: 101: percent field should be in 0-100",
        ),
        (
            {**SLOW, "delay": None},
            "spec.delay: Required value: action latency does nothing without it",
        ),
        (
            {**SLOW, "delay": "5ns"},
            (
                'spec.delay: Invalid value: "5ns": action latency does nothing without it; the '
                "shortest is 1us"
            ),
        ),
        (
            {**SLOW, "delay": "soon"},
            'spec.delay: Invalid value: "soon": is not a duration; write it as 10ms, 1.5s or 2h45m',
        ),
        (
            {**SLOW, "delay": "-1ms"},
            'spec.delay: Invalid value: "-1ms": is negative: nothing is done before it is asked',
        ),
        (
            {"action": "attrOverride", "volumePath": "/data"},
            "spec.attr: Required value: action attrOverride does nothing without it",
        ),
        (
            {"action": "attrOverride", "attr": {"perm": 4096}, "volumePath": "/data"},
            "spec.attr.perm: Invalid value: 4096: must be from 0 to 4095",
        ),
        (
            {"action": "attrOverride", "attr": {"kind": "file"}, "volumePath": "/data"},
            (
                'spec.attr.kind: Invalid value: "file": is no sort of file; write one of '
                "namedPipe, charDevice, blockDevice, directory, regularFile, symlink, socket"
            ),
        ),
        (
            {
                "action": "attrOverride",
                "attr": {"mtime": {"sec": 1, "nsec": -1}},
                "volumePath": "/d",
            },
            "spec.attr.mtime.nsec: Invalid value: -1: must be from 0 to 999999999",
        ),
        (
            {"action": "mistake", "volumePath": "/data"},
            "spec.mistake: Required value: action mistake does nothing without it",
        ),
        (
            {"action": "mistake", "mistake": {"maxLength": 0}, "volumePath": "/data"},
            (
                "spec.mistake.maxLength: Invalid value: 0: spec.mistake.maxLength in body should "
                "be greater than or equal to 1"
            ),
        ),
        (
            {**SLOW, "volumePath": "data"},
            'spec.volumePath: Invalid value: "data": must be an absolute path, as /var/lib/data',
        ),
        (
            {**SLOW, "volumePath": "/data/../etc"},
            (
                'spec.volumePath: Invalid value: "/data/../etc": must be an absolute path, as '
                "/var/lib/data"
            ),
        ),
        (
            {**SLOW, "volumePath": "/"},
            (
                'spec.volumePath: Invalid value: "/": cannot be the root of the container; name a '
                "directory in it"
            ),
        ),
        (
            {**SLOW, "path": "/other/*"},
            (
                'spec.path: Invalid value: "/other/*": matches nothing in /data; it is a pattern '
                "over the whole path"
            ),
        ),
        (
            {**SLOW, "path": "/data/x**"},
            (
                'spec.path: Invalid value: "/data/x**": is not a pattern: `**` must be a whole '
                "component, as in `/data/**/*`"
            ),
        ),
        *(
            ({**SLOW, "path": path}, f'spec.path: Invalid value: "{path}": fits no path: ')
            for path in ("/data/", "/data//x", "/data/../etc/*", "/data/./x", "**/../x")
        ),
        (
            {**SLOW, "methods": ["access"]},
            'spec.methods: Invalid value: "array": action latency acts on none of these, but on ',
        ),
        (
            {"action": "mistake", "mistake": {}, "methods": ["getattr"], "volumePath": "/data"},
            (
                'spec.methods: Invalid value: "array": action mistake acts on none of these, but '
                "on read, write"
            ),
        ),
        (
            {**SLOW, "methods": ["read", "stat"]},
            'spec.methods[1]: Invalid value: "stat": is no request; write some of lookup, forget, ',
        ),
        (
            {"action": "noSpace", "space": "10%", "volumePath": "/data"},
            (
                'spec.space: Invalid value: "10%": must be bytes, as 64MB: of what it would be a '
                "share, nobody knows"
            ),
        ),
        (
            {"action": "powerLoss", "percent": 50, "methods": ["write"], "volumePath": "/data"},
            "spec.percent: Invalid value: 50: power goes for all or for nobody; leave it out",
        ),
        ({"action": "delay", "volumePath": "/data"}, 'spec.action: Unsupported value: "delay"'),
        ({"action": "powerLoss"}, "spec.volumePath: Required value"),
    ],
)
def test_what_could_never_act_is_refused_with_path_and_reason(fields, said):
    causes = refused(**fields)
    assert any(cause.startswith(said) for cause in causes), causes
