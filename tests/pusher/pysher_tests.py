"""Pysher (https://github.com/deepbrook/Pysher), unmodified: every method, and what it does when connections are closed.

The server and the backend are named by HOST, PORT, TLS, KEY, SECRET and BACKEND."""

import json
import logging
import os
import queue
import sys
import time
import traceback
import uuid

import pysher
import requests

LIMIT_S = 20
KEY, SECRET, BACKEND = os.environ["KEY"], os.environ["SECRET"], os.environ["BACKEND"]
logging.getLogger("pysher").setLevel(logging.CRITICAL)
RECONNECT_S = 0.3
clients = []


def client(**options):
    """A client that connects; its socket ID is there when this returns, unless the key is another."""
    settings = dict(secure=bool(os.environ["TLS"]), custom_host=os.environ["HOST"], port=int(os.environ["PORT"]), secret=SECRET)
    settings |= dict(reconnect_interval=RECONNECT_S, log_level=logging.CRITICAL) | options
    key = settings.pop("key", KEY)
    made = pysher.Pusher(key, **settings)
    made.errors = listen(made.connection, "pusher:error")
    made.successes = queue.Queue()
    handle = made.connection.event_handler

    # The success may arrive before Pysher knows the channel, which it does only after sending its request.
    def heard(event, data, channel):
        if event == "pusher_internal:subscription_succeeded":
            made.successes.put((channel, json.loads(data)))
        handle(event, data, channel)

    made.connection.event_handler = heard
    clients.append(made)
    made.connect()
    if key == KEY:
        connected(made)
    return made


def connected(made):
    until("connected", lambda: made.connection.state == "connected")


def listen(emitter, event):
    box = queue.Queue()
    emitter.bind(event, box.put)
    return box


def subscribe(made, name, auth=None):
    """A channel that is subscribed, and what its success said."""
    channel = made.subscribe(name, auth)
    succeeded, told = take(made.successes)
    equal(succeeded, name)
    return channel, told


def equal(actual, expected):
    assert actual == expected, f"{actual!r}, expected: {expected!r}"


def take(box):
    return box.get(timeout=LIMIT_S)


def until(what, condition):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < LIMIT_S, f"not within {LIMIT_S} s: {what}"
        time.sleep(0.02)


def do(action, *args):
    answer = requests.post(f"{BACKEND}/do/{action}", data=json.dumps(args), timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def name(prefix):
    return f"{prefix}-pysher-{uuid.uuid4().hex[:8]}"


def test_public_channel():
    made = client()
    channel, told = subscribe(made, name("orders"))
    equal(told, {})
    assert made.channel(channel.name) is channel
    paid = listen(channel, "paid")
    for data, text in [({"id": 1}, '{"id":1}'), ("text", "text"), (17, "17")]:
        do("trigger", channel.name, "paid", data)
        equal(take(paid), text)
    do("admin", {"command": "publish", "channel": channel.name, "event": "paid", "data": "text"})
    equal(take(paid), '"text"')
    made.unsubscribe(channel.name)
    assert made.channel(channel.name) is None
    until("unsubscribed", lambda: do("admin", {"command": "channel", "channel": channel.name})["subscribers"] == 0)
    again, _ = subscribe(made, channel.name)
    paid = listen(again, "paid")
    do("trigger", channel.name, "paid", 2)
    equal(take(paid), "2")
    assert made.errors.empty()


def test_ping_on_open_is_answered():
    made = client()
    until("a pong", lambda: made.connection.pong_received)
    made.connection.pong_received = False
    made.connection.send_ping()
    until("another pong", lambda: made.connection.pong_received)


def test_private_channel():
    for made in [client(), client(secret="", auth_endpoint=f"{BACKEND}/auth")]:
        channel, told = subscribe(made, name("private-orders"))
        equal(told, {})
        paid = listen(channel, "paid")
        do("trigger", channel.name, "paid", {"id": 1})
        equal(take(paid), '{"id":1}')
    made = client(secret="")
    auth = do("signChannel", made.connection.socket_id, channel.name)
    subscribe(made, channel.name, auth)


def test_presence_channel():
    room = name("presence-room")
    one, told = subscribe(client(user_data={"user_id": "u1", "user_info": {"name": "One"}}), room)
    equal(told, {"presence": {"count": 1, "ids": ["u1"], "hash": {"u1": {"name": "One"}}}})
    added, removed, typing = (listen(one, event) for event in ["pusher_internal:member_added", "pusher_internal:member_removed", "client-typing"])
    second = client(user_data={"user_id": 2})
    two, told = subscribe(second, room)
    equal(told["presence"], {"count": 2, "ids": ["u1", "2"], "hash": {"u1": {"name": "One"}, "2": {}}})
    equal(json.loads(take(added)), {"user_id": "2", "user_info": {}})
    two.trigger("client-typing", {"a": 1})
    equal(json.loads(take(typing)), {"a": 1})
    second.unsubscribe(room)
    equal(json.loads(take(removed)), {"user_id": "2"})


def test_client_events():
    room = name("private-room")
    one, _ = subscribe(client(), room)
    two, _ = subscribe(client(), room)
    boxes = [listen(channel, "client-typing") for channel in (one, two)]
    one.trigger("client-typing", {"name": "One"})
    equal(json.loads(take(boxes[1])), {"name": "One"})
    one.trigger("client-typing", "text")
    equal(take(boxes[1]), "text")
    assert boxes[0].empty()


def test_refusals_keep_the_connection():
    made = client(secret="another")
    first = made.connection.socket_id
    made.subscribe(name("private-orders"))
    error = take(made.errors)
    assert error["code"] is None and error["message"].startswith("Invalid signature"), error
    made.connection.send_event("foo", {})
    assert "'foo'" in take(made.errors)["message"]
    subscribe(made, name("orders"))
    equal((made.connection.state, made.connection.socket_id), ("connected", first))


def test_unknown_key_is_final():
    made = client(key="nope")
    error = take(made.errors)
    equal((error["code"], error["message"]), (4001, "App key nope does not exist"))
    until("the end", lambda: made.connection.disconnect_called and made.connection.state == "disconnected")


def test_closed_with_4200_comes_back_at_once():
    made = client(auto_sub=True, reconnect_interval=LIMIT_S * 2)
    closed_and_back(made, 4200)


def test_closed_with_4100_comes_back_after_its_interval():
    closed_and_back(client(auto_sub=True), 4100)


def closed_and_back(made, code):
    channel, _ = subscribe(made, name("orders"))
    first = made.connection.socket_id
    do("admin", {"command": "disconnect", "socket_id": first, "code": code})
    equal(take(made.errors)["code"], code)
    until("back", lambda: made.connection.state == "connected" and made.connection.socket_id != first)
    equal(take(made.successes), (channel.name, {}))
    paid = listen(channel, "paid")
    do("trigger", channel.name, "paid", 1)
    equal(take(paid), "1")


def test_disconnected_by_the_operator_is_final():
    made = client()
    do("admin", {"command": "disconnect", "socket_id": made.connection.socket_id})
    equal(take(made.errors)["code"], 4009)
    until("the end", lambda: made.connection.disconnect_called and made.connection.state == "disconnected")


def main():
    failed = 0
    for test, run in [(test, run) for test, run in globals().items() if test.startswith("test_")]:
        try:
            run()
        except Exception:
            print(f"FAILED: {test}\n{traceback.format_exc()}", file=sys.stderr)
            failed += 1
    sys.stderr.flush()
    # Its threads may wait to connect again.
    os._exit(1 if failed else 0)


main()
