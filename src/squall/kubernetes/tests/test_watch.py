"""The list-and-watch loop against a scripted server: every way a watch can end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.cluster import ApiError, Change, NotFound, Object, Unreachable
from squall.kubernetes.watch import LONGEST_DELAY_SECONDS, Known, Listing, follow

EXPIRED = ApiError(410, "Expired", "too old resource version: 1 (9)")
LOST = Unreachable(0, "Unreachable", "connection reset")
FORBIDDEN = ApiError(403, "Forbidden", "no")


def thing(name: str, version: int, uid: str = "") -> Object:
    return {"metadata": {"name": name, "uid": uid or name, "resourceVersion": str(version)}}


def bookmark(version: int) -> tuple[str, Object]:
    return "BOOKMARK", {"metadata": {"resourceVersion": str(version)}}


class Script:
    """Plays answers in order; `asked` lists the versions that watches started from."""

    def __init__(self, *answers):
        self.answers, self.asked, self.slept = list(answers), [], []

    async def pages(self) -> AsyncGenerator[Listing]:
        self.asked.append("list")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        for page in answer if isinstance(answer, list) else [answer]:
            yield page

    async def changes(self, version: str) -> AsyncGenerator[tuple[str, Object]]:
        self.asked.append(version)
        for line in self.answers.pop(0):
            if isinstance(line, Exception):
                raise line
            yield line

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def heard(script: Script, number: int) -> list[str]:
    said = []
    async with aclosing(follow(script, script.sleep)) as events:
        async for event in events:
            said.append(
                f"{event.change} {event.object['metadata']['name']}" if event.object else "SYNCED"
            )
            if len(said) == number:
                return said
    return said


async def test_what_is_there_comes_first_then_synced_then_changes():
    script = Script(
        Listing([thing("a", 1), thing("b", 2)], "5"),
        [("MODIFIED", thing("a", 6)), ("ADDED", thing("c", 7)), ("DELETED", thing("b", 8))],
    )
    assert await heard(script, 6) == [
        "ADDED a", "ADDED b", "SYNCED", "MODIFIED a", "ADDED c", "DELETED b",
    ]  # fmt: skip


async def test_a_stream_that_ends_in_good_order_is_resumed_where_it_stopped():
    script = Script(
        Listing([thing("a", 1)], "5"),
        [("MODIFIED", thing("a", 6))],
        [bookmark(9)],
        [("MODIFIED", thing("a", 12))],
    )
    assert await heard(script, 4) == ["ADDED a", "SYNCED", "MODIFIED a", "MODIFIED a"]
    assert script.asked == ["list", "5", "6", "9"]


@pytest.mark.parametrize("end", [EXPIRED, LOST, ApiError(500, "InternalError", "oops")])
async def test_after_a_break_only_what_differs_is_reported_and_then_synced(end):
    before = [thing("same", 1), thing("changed", 2), thing("gone", 3), thing("replaced", 4, "old")]
    after = [thing("same", 1), thing("changed", 7), thing("replaced", 8, "new"), thing("new", 9)]
    script = Script(Listing(before, "5"), [end], Listing(after, "10"), [("ADDED", thing("x", 11))])
    assert await heard(script, 12) == [
        *("ADDED same", "ADDED changed", "ADDED gone", "ADDED replaced", "SYNCED"),
        *("MODIFIED changed", "DELETED replaced", "ADDED replaced", "ADDED new", "DELETED gone"),
        *("SYNCED", "ADDED x"),
    ]


async def test_pages_make_one_list_and_what_was_read_before_a_new_beginning_does_not_count():
    script = Script(
        [Listing([thing("a", 1)], "5"), Listing([thing("b", 2)], "5", first=False)],
        [EXPIRED],
        [Listing([thing("a", 1)], "8"), Listing([thing("b", 9)], "9")],
        [("ADDED", thing("c", 10))],
    )
    assert await heard(script, 7) == [
        *("ADDED a", "ADDED b", "SYNCED", "MODIFIED b", "DELETED a", "SYNCED", "ADDED c"),
    ]
    assert script.asked == ["list", "5", "list", "9"]


async def test_a_server_that_stays_away_is_asked_again_ever_more_slowly():
    script = Script(*[LOST] * 20, Listing([], "5"))
    assert await heard(script, 1) == ["SYNCED"]
    assert len(script.slept) == 20
    assert script.slept[0] < 0.2
    assert LONGEST_DELAY_SECONDS / 2 <= script.slept[-1] <= LONGEST_DELAY_SECONDS


async def test_lists_that_succeed_do_not_hide_watches_that_break():
    script = Script(*[Listing([], "5"), [LOST]] * 12, Listing([], "5"))
    assert await heard(script, 13) == ["SYNCED"] * 13
    assert script.slept[-1] > LONGEST_DELAY_SECONDS / 2


async def test_a_change_that_arrives_makes_the_next_wait_short_again():
    script = Script(
        *[LOST] * 9,
        Listing([], "1"),
        [("ADDED", thing("a", 2)), LOST],
        Listing([thing("a", 2)], "3"),
    )
    assert await heard(script, 3) == ["SYNCED", "ADDED a", "SYNCED"]
    assert script.slept[-1] < 0.2


@pytest.mark.parametrize("refusal", [NotFound(404, "NotFound", "no such kind"), FORBIDDEN])
async def test_what_will_not_get_better_is_raised(refusal):
    with pytest.raises(type(refusal)):
        await heard(Script(refusal), 1)
    with pytest.raises(type(refusal)):
        await heard(Script(Listing([], "5"), [refusal]), 2)


async def test_a_line_that_says_nothing_new_is_not_reported():
    script = Script(
        Listing([thing("a", 1)], "5"),
        [("ADDED", thing("a", 1)), ("DELETED", thing("never seen", 6)), ("ADDED", thing("b", 7))],
    )
    assert await heard(script, 3) == ["ADDED a", "SYNCED", "ADDED b"]


STATES = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.integers(1, 3), st.sampled_from(["u", "v"])), max_size=4
)


@given(STATES, STATES)
def test_the_differences_of_two_lists_lead_from_one_to_the_other(before, after):
    def listed(state):
        return [thing(n, v, uid) for n, (v, uid) in state.items()]

    def told(state):
        return known.listed(Listing(listed(state), "1")) + known.gone()

    known, seen = Known(), {}
    told(before)
    seen.update({o["metadata"]["name"]: o for o in listed(before)})
    for event in told(after):
        name = event.object["metadata"]["name"]
        if event.change is Change.DELETED:
            del seen[name]
        else:
            assert (name in seen) == (event.change is Change.MODIFIED)
            seen[name] = event.object
    assert seen == {o["metadata"]["name"]: o for o in listed(after)}
