import httpx2
import pytest

from squall.api.cluster import ApiError
from squall.kubernetes.server import chosen
from squall.kubernetes.token_file import READ_SECONDS, TokenFile


class Time:
    """Seconds as the test says."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


def shown(auth, answers=(200,)):
    """Which tokens one request shows, one for each answer."""
    flow = auth.auth_flow(httpx2.Request("GET", "https://api/"))
    tokens = [next(flow).headers["Authorization"]]
    for status in answers:
        try:
            tokens.append(flow.send(httpx2.Response(status)).headers["Authorization"])
        except StopIteration:
            break
    return [token.removeprefix("Bearer ") for token in tokens]


def test_a_new_token_is_shown_after_a_minute(path):
    time = Time()
    auth = TokenFile(path, time)
    assert shown(auth) == ["first"]
    path.write_text("second")
    time.now = READ_SECONDS - 1
    assert shown(auth) == ["first"]
    time.now = READ_SECONDS
    assert shown(auth) == ["second"]


def test_a_refused_token_is_looked_up_at_once_and_the_request_sent_again(path):
    auth = TokenFile(path, Time())
    assert shown(auth) == ["first"]
    path.write_text("second")
    assert shown(auth, (401, 200)) == ["first", "second"]
    assert shown(auth) == ["second"]


def test_a_refused_token_that_is_still_there_is_not_sent_twice(path):
    assert shown(TokenFile(path, Time()), (401, 401)) == ["first"]


def test_a_file_that_is_gone_for_a_moment_changes_nothing(path):
    time = Time()
    auth = TokenFile(path, time)
    assert shown(auth) == ["first"]
    path.unlink()
    time.now = READ_SECONDS
    assert shown(auth) == ["first"]


def test_a_token_that_never_was_there_is_said(tmp_path):
    with pytest.raises(ApiError, match="without a token nobody answers"):
        shown(TokenFile(tmp_path / "token", Time()))


# Where the API is -------------------------------------------------------------------------

INSIDE = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(path):
    (path.parent / "ca.crt").write_text("certificate")
    (path.parent / "namespace").write_text("chaos\n")
    return path.parent


def kubeconfig(path, server):
    path.write_text(
        "current-context: a\n"
        "contexts: [{name: a, context: {cluster: b}}]\n"
        f"clusters: [{{name: b, cluster: {{server: '{server}'}}}}]\n"
    )
    return path


@pytest.mark.parametrize(
    ("given", "variable", "inside", "server"),
    [
        (True, True, True, "https://given"),
        (False, True, True, "https://variable"),
        (False, False, True, "https://10.96.0.1:443"),
        (False, False, False, "https://up"),
    ],
)
def test_the_nearest_word_says_where_the_api_is(account, tmp_path, given, variable, inside, server):
    explicit = kubeconfig(tmp_path / "given", "https://given")
    environ = dict(INSIDE) if inside else {}
    if variable:
        environ["KUBECONFIG"] = str(kubeconfig(tmp_path / "variable", "https://variable"))
    kubeconfig(tmp_path / "kubeconfig", "https://up")
    found = chosen(explicit if given else None, environ, tmp_path, account)
    assert found.url == server


def test_a_pod_s_namespace_is_the_default_one(account, tmp_path):
    assert chosen(None, INSIDE, tmp_path, account).namespace == "chaos"


def test_addresses_of_the_sixth_version_are_put_in_brackets(account, tmp_path):
    inside = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert chosen(None, inside, tmp_path, account).url == "https://[fd00::1]:6443"


def test_a_pod_without_the_api_server_s_authority_is_told(account, tmp_path):
    (account / "ca.crt").unlink()
    with pytest.raises(ApiError, match="impostor"):
        chosen(None, INSIDE, tmp_path, account)


def test_a_pod_that_was_given_no_token_is_no_client(tmp_path):
    with pytest.raises(FileNotFoundError):
        chosen(None, INSIDE, tmp_path / "none", tmp_path / "nothing")
