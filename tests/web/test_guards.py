"""What is let through to an application, what isn't, and with which headers it is answered."""

import asyncio
import base64
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from grounded_seg.web.access import Access, host_of
from grounded_seg.web.error_answers import answer_faults
from grounded_seg.web.guards import Guards

TOKEN = "s3cret"


async def _echo(request: Request) -> Response:
    return JSONResponse({"n": len(await request.body()), "q": dict(request.query_params)})


async def _unread(_: Request) -> Response:
    return PlainTextResponse("done")


async def _broken(_: Request) -> Response:
    raise ZeroDivisionError("a fault of ours")


def client(access: Access, base_url: str = "http://127.0.0.1:8765") -> TestClient:
    routes = [
        Route("/echo", _echo, methods=["GET", "POST", "DELETE"]),
        Route("/unread", _unread, methods=["GET", "POST"]),
        Route("/broken", _broken),
        Route("/health", _unread),
    ]
    app = Starlette(routes=routes)
    answer_faults(app)
    return TestClient(Guards(app, access), base_url, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def here() -> TestClient:
    return client(Access(max_body_bytes=1000))


@pytest.fixture
def locked() -> TestClient:
    return client(Access(host="0.0.0.0", token=TOKEN, open_paths=frozenset({"/health"})))


def code(answer: Response) -> str:
    content = answer.json()
    assert content["success"] is False
    assert content["error"]["message"]
    return str(content["error"]["code"])


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST.:80", "localhost"),
        ("[::1]:8765", "::1"),
        ("10.0.0.1:1", "10.0.0.1"),
        ("", None),
        ("a b", None),
        ("evil@localhost", None),
        ("localhost:80:80", None),
        ("localhost:port", None),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str | None) -> None:
    assert host_of(header) == name


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:99", "[::1]:8765", "127.3.4.5"])
def test_names_of_this_machine_are_answered(here: TestClient, name: str) -> None:
    assert here.get("/echo", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_another_name_for_this_machine_is_refused(here: TestClient, name: str) -> None:
    answer = here.get("/echo", headers={"Host": name})
    assert answer.status_code == 421
    assert code(answer) == "wrong_host"


def test_with_a_token_other_names_are_answered_to_who_has_it(locked: TestClient) -> None:
    has_it = {"Authorization": f"Bearer {TOKEN}"}
    assert locked.get("/echo", headers={"Host": "gpu-box.lan", **has_it}).status_code == 200
    assert locked.get("/health", headers={"Host": "10.0.0.1"}).status_code == 200
    # Without it, even what is open to all isn't told to a page that had its own name point here.
    assert locked.get("/health", headers={"Host": "evil.example"}).status_code == 421


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer {TOKEN}"},
        {"Authorization": f"Token {TOKEN}"},
        {"Token": TOKEN},
        {"Authorization": basic(TOKEN)},
    ],
)
def test_a_token_is_taken_in_each_form(locked: TestClient, headers: dict[str, str]) -> None:
    assert locked.get("/echo", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Digest {TOKEN}"},
        {"Token": "wrong"},
        {"Token": "ключ"},
        {"Authorization": basic("wrong")},
        {"Authorization": "Basic %%%"},
        {"Authorization": TOKEN},
        {"Cookie": f"token={TOKEN}"},
    ],
)
def test_without_the_token_nothing_is_answered(locked: TestClient, headers: dict[str, str]) -> None:
    answer = locked.get("/echo", headers={name: value.encode() for name, value in headers.items()})
    assert answer.status_code == 401
    assert code(answer) == "unauthorized"
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert TOKEN not in answer.text


def test_an_open_path_needs_no_token_but_tells_a_wrong_one(locked: TestClient) -> None:
    assert locked.get("/health").status_code == 200
    assert locked.get("/health", headers={"Token": "wrong"}).status_code == 401


def test_the_printed_address_leaves_a_cookie_that_is_not_the_token(locked: TestClient) -> None:
    answer = locked.get(f"/echo?token={TOKEN}&page=2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/echo?page=2")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert locked.get("/echo").status_code == 200
    other = client(Access(host="0.0.0.0", token=TOKEN))
    name_and_value = cookie.partition(";")[0]
    assert other.get("/echo", headers={"Cookie": name_and_value}).status_code == 401


def test_the_printed_address_with_a_wrong_token_leaves_none(locked: TestClient) -> None:
    answer = locked.get("/echo?token=wrong")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_printed_address_leads_to_no_other_server(locked: TestClient) -> None:
    answer = locked.get(f"http://127.0.0.1:8765//evil.example/?token={TOKEN}")
    assert answer.headers["location"] == "/evil.example/"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_server_can_not_write(here: TestClient, headers: dict[str, str]) -> None:
    for method in ("POST", "DELETE"):
        answer = here.request(method, "/echo", headers=headers)
        assert answer.status_code == 403
        assert code(answer) == "forbidden"


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://127.0.0.1:8765"}, {"Sec-Fetch-Site": "same-origin"}])
def test_our_own_page_and_programs_can_write(here: TestClient, headers: dict[str, str]) -> None:
    assert here.post("/echo", content=b"abc", headers=headers).json()["n"] == 3


def test_no_other_page_is_invited(here: TestClient) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answers = [here.options("/echo", headers=asked), here.get("/echo", headers=asked)]
    assert [answer.status_code for answer in answers] == [405, 200]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]


def chunks(n: int) -> Iterator[bytes]:
    for _ in range(n):
        yield b"x" * 100


def test_a_request_over_the_limit_is_refused_with_and_without_its_length(here: TestClient) -> None:
    assert here.post("/echo", content=b"x" * 1000).json()["n"] == 1000
    assert here.post("/echo", content=chunks(10)).json()["n"] == 1000
    for content in (b"x" * 1001, chunks(11)):
        answer = here.post("/echo", content=content)
        assert answer.status_code == 413
        assert code(answer) == "too_large"
    assert here.post("/echo", content=b"", headers={"Content-Length": "12a"}).status_code == 400


def test_every_answer_has_the_security_headers(here: TestClient, locked: TestClient) -> None:
    answers = [
        here.get("/echo"),
        here.get("/missing"),
        here.get("/broken"),
        here.get("/echo", headers={"Host": "evil.example"}),
        locked.get("/echo"),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 500, 421, 401]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_fault_of_ours_is_one_answer_and_one_line(here: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    answer = here.get("/broken")
    assert code(answer) == "internal_error"
    assert "ZeroDivisionError" not in answer.text
    assert [record.getMessage() for record in caplog.records if record.name.startswith("grounded_seg")] == [
        "unexpected ZeroDivisionError: a fault of ours at /broken; please report it, with the output of --debug"
    ]
    assert here.get("/echo").status_code == 200


def test_a_caller_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grounded_seg.web.guards._SILENCE_S", 0.05)
    monkeypatch.setattr("grounded_seg.web.guards._LINGER_S", 0.05)
    app = Starlette(routes=[Route("/echo", _echo, methods=["POST"])])
    answer_faults(app)
    sent = []

    async def receive() -> dict[str, object]:
        if not asked:
            asked.append(1)
            return {"type": "http.request", "body": b"abc", "more_body": True}
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: object) -> None:
        sent.append(message)

    asked: list[int] = []
    headers = [(b"host", b"localhost"), (b"content-length", b"900")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/echo",
        "raw_path": b"/echo",
        "query_string": b"",
        "headers": headers,
        "server": ("localhost", 80),
        "scheme": "http",
    }
    asyncio.run(Guards(app, Access())(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"timeout" in sent[1]["body"]


def test_websockets_are_closed(here: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), here.websocket_connect("/echo"):
        pass
