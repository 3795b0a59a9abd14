"""Fetching URLs: whatever a server sends, the answer is bytes or one sentence, in time, and no secret is repeated."""

import base64
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sere.decoding_sere import AudioError
from modeling_sere.fetching_sere import _redirected, _Refused, fetch, is_url, shown_url
from testing.slow_server import BEHAVIOURS, BODY, Server, answer, endlessly


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


def test_bodies_come_whole(server):
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
    server.answers |= {"/length": answer(BODY), "/open": head + b"\r\n" + BODY, "/chunks": head + chunks}
    for path in server.answers:
        assert fetch(server.url + path).getvalue() == BODY
    assert fetch(server.url.replace("http", "HTTP") + "/length").getvalue() == BODY


def test_odd_addresses_are_quoted(server):
    server.answers |= {"/a%20b/%C3%BC.wav?x=%20": answer(BODY)}
    assert fetch(f"{server.url}/a b/ü.wav?x=%20#t=3").getvalue() == BODY


@pytest.mark.parametrize(("sent", "message"), BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_what_servers_may_do_is_one_sentence_in_time(server, sent, message):
    server.answers["/it"] = sent()
    start = time.monotonic()
    with pytest.raises(AudioError, match=rf"^http://127\.0\.0\.1:\d+/it cannot be fetched: {message}") as caught:
        fetch(server.url + "/it", max_bytes=50_000, timeout=0.5)
    assert time.monotonic() - start < 5
    assert caught.value.__cause__ is caught.value.__context__ is None  # these would repeat the URL
    assert str(caught.value).isprintable()


def test_the_thread_of_a_slow_server_ends(server):
    server.answers["/slow"] = endlessly(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.02)
    with pytest.raises(AudioError, match="took longer"):
        fetch(server.url + "/slow", timeout=0.2)
    for thread in threading.enumerate():
        if thread.name == "sere-fetch":
            thread.join(5)
            assert not thread.is_alive()


def test_redirects_are_followed(server):
    server.answers |= {"/from": answer(b"moved", "302 Found", Location="to?x=1"), "/to?x=1": answer(BODY)}
    assert fetch(server.url + "/from").getvalue() == BODY
    assert _redirected("http://a/x", "https://b/y") == "https://b/y"
    with pytest.raises(_Refused, match="from https to http"):
        _redirected("https://a/x", "http://b/y")


def test_credentials_reach_their_host_and_nobody_else(server):
    with Server() as other:
        server.answers["/private"] = answer(b"", "302 Found", Location=other.url + "/public")
        other.answers["/public"] = answer(BODY)
        assert fetch(f"http://anna:p%40ss@127.0.0.1:{server.server_address[1]}/private").getvalue() == BODY
    sent = f"Authorization: Basic {base64.b64encode(b'anna:p@ss').decode()}"
    assert sent in server.requests[-1]
    assert not any(line.startswith("Authorization") for line in other.requests[-1])


@pytest.mark.parametrize(
    "url",
    [
        "http://anna:secret@127.0.0.1:1/x.wav", "https://anna:secret@[::1/x", "http://anna:secret@host:port/x",
        "ftp://anna:secret@host/x", "https:/anna:secret@host/x", "http://anna:sec/ret@host/x", "http://@/secret@",
        "http://127.0.0.1:1/x.wav?token=secret", "http://127.0.0.1:1/x#secret", "data:audio/wav;base64,secret",
        " \nhttp://anna:secret@127.0.0.1:1/x\n", "http://127.0.0.1:1/x;token=secret",
        "http://\0secret@/x", "http://anna:secret@" + "a" * 70 + ".invalid/x",
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_repeats_no_secret(url):
    assert is_url(url)
    with pytest.raises(AudioError, match="cannot be fetched: ") as caught:
        fetch(url, timeout=5)
    for part in ("secret", "sec/", "ret@", "anna"):
        assert part not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_in_a_second_connection_has_no_more_time(server):
    """The limit is one for all redirects together, not one for each."""

    def slowly(location):
        time.sleep(0.2)
        yield answer(b"", "302 Found", Location=location)

    server.answers |= {f"/{i}": slowly(f"/{i + 1}") for i in range(5)} | {"/5": answer(BODY)}
    with pytest.raises(AudioError, match="longer than 0.5 s"):
        fetch(server.url + "/0", timeout=0.5)


def test_what_is_a_url():
    assert all(map(is_url, ("http://a/b", "HTTPS://a/b", "s3://a/b", "https:/a/b", "data:,x", "hf://datasets/a/b.wav")))
    assert not any(map(is_url, ("a/b.wav", "/a/b.wav", "C:/a/b.wav", "c:\\a.wav", "clip: 1/2.wav", "http_a.wav", "")))


@given(
    user=st.text(min_size=1),
    password=st.text(min_size=1),
    query=st.text(min_size=1),
    host=st.from_regex(r"[a-z]{1,9}(:[0-9]{1,4})?", fullmatch=True),
    path=st.from_regex(r"(/[a-z0-9._-]{0,5}){1,3}", fullmatch=True),
)
def test_shown_urls_hold_place_or_nothing(user, password, query, host, path):
    """Well-formed or not, what is shown is made of the scheme, the host and the path alone."""
    shown = {f"https://{host}{path}?...", f"https://{host}{path}", "https:..."}
    assert shown_url(f"https://u:{'p' * 12}@{host}{path}?{'t' * 12}") == f"https://{host}{path}?..."
    clean = [text.translate({ord(mark): None for mark in "/?#;"}) for text in (user, password)]
    assert shown_url(f"https://{clean[0]}:{clean[1]}@{host}{path}?{query}") in shown
    assert shown_url(f"https://{host}{path}?{query}") in shown
