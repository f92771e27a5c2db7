"""What the Python servers run. Each request that was read to its end becomes a line of the file LEDGER:
id, status, method, target, and the body in hexadecimal digits. The answer says the first ones back in X-Echo."""

import asyncio
import os

LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def record(request_id, method, target, body, status=200):
    """Writes one line, whole or not at all, and returns what the answer says back."""
    os.write(LEDGER, f"{request_id or '-'} {status} {method} {target} {body.hex() or '-'}\n".encode("latin-1"))
    return f"{request_id} {method} {target}"


def wsgi(environ, start_response):
    # Not in PEP 3333, but each server has the target as it was sent: PATH_INFO is decoded.
    target = environ.get("RAW_URI") or environ["REQUEST_URI"]
    body = environ["wsgi.input"].read()
    echo = record(environ.get("HTTP_X_REQUEST_ID"), environ["REQUEST_METHOD"], target, body)
    start_response("200 OK", [("X-Echo", echo), ("Content-Length", "3")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"ok\n"]


def field(scope, name):
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), None)


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    if scope["type"] == "websocket":
        record(field(scope, b"x-request-id"), "GET", target, b"", 403)
        await send({"type": "websocket.close"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    echo = record(field(scope, b"x-request-id"), scope["method"], target, body)
    headers = [(b"x-echo", echo.encode("latin-1")), (b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok\n"})


async def aiohttp_handler(request):
    from aiohttp import web

    body = await request.read()
    echo = record(request.headers.get("x-request-id"), request.method, request.raw_path, body)
    return web.Response(body=b"ok\n", headers={"X-Echo": echo})


async def main_aiohttp(port):
    from aiohttp import web

    runner = web.ServerRunner(web.Server(aiohttp_handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main_aiohttp(int(os.environ["PORT"])))
