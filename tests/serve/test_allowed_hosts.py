"""Images are fetched from the hosts that the owner has named, and from nowhere else."""

import pytest
from elsewhere import Elsewhere
from starlette.exceptions import HTTPException

from grounded_seg.errors import UsageError
from grounded_seg.serve.allowed_hosts import allowed_host, fetched_from, is_allowed

ALLOWED = [allowed_host("labels.lan"), allowed_host("10.0.0.7:8080"), allowed_host("[::1]:80")]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://labels.lan/a.png", True),
        ("https://LABELS.lan.:8443/a.png", True),
        ("http://10.0.0.7:8080/a.png", True),
        ("http://[::1]/a.png", True),
        ("http://user:word@labels.lan/a.png", True),
        ("http://10.0.0.7/a.png", False),
        ("http://10.0.0.7:8081/a.png", False),
        ("http://labels.lan.evil.example/a.png", False),
        ("http://evil.example/labels.lan", False),
        ("http://labels.lan@evil.example/", False),
        ("http://evil.example#@labels.lan/", False),
        ("ftp://labels.lan/a.png", False),
        ("file:///etc/passwd", False),
        ("//labels.lan/a.png", False),
        ("labels.lan/a.png", False),
        ("http://labels.lan:port/", False),
        ("http://[::1/", False),
        ("", False),
    ],
)
def test_which_addresses_are_allowed(url: str, allowed: bool) -> None:
    assert is_allowed(url, ALLOWED) is allowed


@pytest.mark.parametrize("text", ["", "*", "*.lan", "a b/c", "labels.lan/path", "ftp://labels.lan", "a@b", "lan:port"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--allow-host .* is no host"):
        allowed_host(text)


def fetch(there: Elsewhere, path: str, *, max_bytes: int = 1000, token: str | None = None) -> bytes:
    headers = {"Authorization": token} if token else {}
    return fetched_from(there.url(path), [allowed_host(there.host)], max_bytes, headers)


def refusal(there: Elsewhere, path: str, **more: int) -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        fetch(there, path, **more)  # type: ignore[arg-type]
    return caught.value


def test_an_allowed_image_is_fetched(elsewhere: Elsewhere) -> None:
    elsewhere.pages["/a.png"] = b"content"
    assert fetch(elsewhere, "/a.png?size=large", token="Token abc") == b"content"
    assert elsewhere.asked == [("/a.png?size=large", "Token abc")]


def test_a_host_that_is_not_allowed_is_not_even_asked(elsewhere: Elsewhere) -> None:
    elsewhere.pages["/a.png"] = b"content"
    with pytest.raises(HTTPException, match=f"--allow-host {elsewhere.host}") as caught:
        fetched_from(elsewhere.url("/a.png"), [allowed_host("labels.lan")], 1000)
    assert (caught.value.status_code, elsewhere.asked) == (403, [])


def test_a_redirect_leads_to_allowed_hosts_only(elsewhere: Elsewhere) -> None:
    elsewhere.pages["/a.png"] = b"content"
    elsewhere.redirects |= {
        "/near": "/a.png",
        "/far": "http://localhost.invalid/a.png",
        "/file": "file:///etc/passwd",
        "/round": "/round",
    }
    assert fetch(elsewhere, "/near", token="Token abc") == b"content"
    assert [token for _, token in elsewhere.asked] == ["Token abc", "Token abc"]
    assert refusal(elsewhere, "/far").status_code == 403
    assert refusal(elsewhere, "/file").status_code == 403
    assert "redirected more than 3 times" in refusal(elsewhere, "/round").detail


def test_the_token_goes_to_its_own_host_only(elsewhere: Elsewhere) -> None:
    elsewhere.pages["/a.png"] = b"content"
    elsewhere.redirects["/away"] = elsewhere.url("/a.png").replace("127.0.0.1", "localhost")
    allowed = [allowed_host(elsewhere.host), allowed_host("localhost")]
    assert fetched_from(elsewhere.url("/away"), allowed, 1000, {"Authorization": "Token abc"}) == b"content"
    assert elsewhere.asked == [("/away", "Token abc"), ("/a.png", None)]


def test_what_can_not_be_had_is_one_error(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere.pages |= {"/large": b"x" * 1001, "/slow": b"x" * 500}
    elsewhere.slow.add("/slow")
    assert refusal(elsewhere, "/missing").status_code == 502
    assert refusal(elsewhere, "/large").status_code == 413
    monkeypatch.setattr("grounded_seg.serve.allowed_hosts._LONGEST_S", 0.1)
    assert "wasn't fetched within" in refusal(elsewhere, "/slow").detail
    elsewhere.port = 1
    error = refusal(elsewhere, "/a.png?secret=1")
    assert error.status_code == 502
    assert "secret" not in error.detail
