"""Under which names the page answers, and whose word about them is believed.

Run: `python -m pytest tests/page/test_hosts.py`
"""

import httpx
import pytest
from starlette.datastructures import Headers

from page import backend, middleware
from page.hosts import asked_host, bare, is_ours, names_of, only_from_trusted
from page.middleware import Access
from persona_bot.errors import UserError
from tests.models import batched_model

FALSE = ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "local.evil.example", "a.b"]
OWN = [
    "localhost",
    "127.0.0.1",
    "[::1]:7860",
    "192.168.1.5:8080",
    "mybox",
    "mybox.local",
    "page.lan",
]


@pytest.fixture(scope="module")
def url(page_url, chat_model, chat_tokenizer) -> str:
    backend.use(batched_model(chat_model, chat_tokenizer))
    return page_url


def ask(url: str, path: str = "config", **headers: str) -> httpx.Response:
    return httpx.get(url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
def known(monkeypatch):
    """As `python app.py --public chat.example.org` answers."""
    access = Access(limited=False, names=names_of(["https://Chat.example.org/"], 0))
    access.add_names(["http://127.0.0.1:7860/", "https://abc.gradio.live"])
    monkeypatch.setattr(middleware, "access", access)


@pytest.mark.parametrize("host", FALSE)
@pytest.mark.parametrize("path", ["", "config", "gradio_api/info"])
def test_a_name_that_is_not_the_pages_is_refused(url, known, host, path):
    answer = ask(url, path, host=host)
    assert answer.status_code == 421 and "--public" in answer.json()["detail"]
    assert "evil" not in answer.text and "content-security-policy" in answer.headers
    call = httpx.post(url + "gradio_api/queue/join", json={}, headers={"host": host})
    assert call.status_code == 421, "a page elsewhere that points its own name here cannot call"


@pytest.mark.parametrize(
    "host", [*OWN, "chat.example.org", "CHAT.example.org:8443", "abc.gradio.live"]
)
def test_its_own_names_and_all_of_the_local_network_are_good(url, known, host):
    answer = ask(url, host=host)
    assert answer.status_code == 200 and answer.json()["root"].split("://")[1] == host.lower()


def test_a_public_link_is_https_although_its_server_asks_in_http(url, known):
    for host, root in {
        "abc.gradio.live": "https://abc.gradio.live",
        "chat.example.org": "https://chat.example.org",
        "mybox:7860": "http://mybox:7860",
    }.items():
        assert ask(url, host=host).json()["root"] == root
        assert f'content="{root}/"' in ask(url, "", host=host).text
    forged = ask(url, host="mybox", x_gradio_server="https://evil.example")
    assert "evil" not in forged.text


def test_health_can_be_asked_under_any_name(url, known):
    assert ask(url, "healthz", host="evil.example").status_code == 200


def test_who_embeds_the_page_knows_its_names(url, monkeypatch):
    monkeypatch.setattr(middleware, "access", Access(limited=False))
    assert ask(url, host="somewhere.example").status_code == 200


@pytest.mark.parametrize("path", ["", "config"])
def test_what_others_say_about_the_host_is_believed_of_trusted_proxies_only(url, monkeypatch, path):
    forged = {"x_forwarded_host": "evil.example", "x_forwarded_proto": "https"}
    assert "evil" not in ask(url, path, **forged).text
    trusting = Access(proxies=1, limited=False, names=names_of(None, 1))
    monkeypatch.setattr(middleware, "access", trusting)
    assert "https://evil.example" in ask(url, path, **forged).text
    # each proxy adds at the right; what the visitor put before it is not believed
    forged["x_forwarded_host"] = "evil.example, chat.example.org"
    answer = ask(url, path, **forged)
    assert "https://chat.example.org" in answer.text and "evil" not in answer.text
    for host in ("a/b", 'x"><script>', "u@a"):
        assert ask(url, path, x_forwarded_host=host).status_code == 400
    # with names even a proxy that hands on everything can be told nothing false
    named = Access(proxies=1, limited=False, names=names_of(["chat.example.org"], 1))
    monkeypatch.setattr(middleware, "access", named)
    assert ask(url, path, x_forwarded_host="evil.example").status_code == 421
    assert ask(url, path, **forged).status_code == 200


def test_names_come_from_the_option_the_root_path_and_the_space(monkeypatch):
    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://demo.example.org:8443/chat")
    monkeypatch.setenv("SPACE_HOST", "me-page.hf.space")
    names = names_of(["a.example.org"], 1)
    https = {"demo.example.org": "https", "me-page.hf.space": "https"}
    assert names == {"a.example.org": ""} | https
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/chat")
    assert names_of(None, 1) is None, "only the proxy knows"
    assert names_of(None, 0) == {"me-page.hf.space": "https"}
    monkeypatch.delenv("SPACE_HOST")
    assert names_of(None, 0) == {}


@pytest.mark.parametrize("address", ["http://[::1", "ftp://a.example", "a b", "https://", "u@a"])
def test_what_is_no_address_of_a_page_is_told(monkeypatch, address):
    with pytest.raises(UserError, match="is no address of a page; write one like"):
        names_of([address], 0)
    monkeypatch.setenv("GRADIO_ROOT_PATH", f"http://{address}")
    with pytest.raises(UserError, match="GRADIO_ROOT_PATH"):
        names_of(None, 1)


def test_names_are_compared_without_port_case_and_brackets():
    assert [bare(host) for host in ("A.Example:80", "[::1]:7860", "a.example.", "[FE80::1]")] == [
        "a.example", "::1", "a.example", "fe80::1",
    ]  # fmt: skip
    assert is_ours("fe80::1", []) and is_ours("10.0.0.1", []) and not is_ours("10.0.0.1.nip.io", [])


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_so_many_proxies_are_believed_and_no_more(hops):
    said = [(b"host", b"own"), (b"x-forwarded-host", b"c, b"), (b"x-forwarded-host", b"a")]
    kept = only_from_trusted([*said, (b"forwarded", b"host=evil"), (b"x-real-ip", b"1")], hops)
    assert asked_host(Headers(raw=kept), hops) == ["own", "a", "b", "c"][hops]
    assert (dict(kept).keys() == {b"host"}) == (hops == 0)
