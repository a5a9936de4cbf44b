import hashlib
import hmac
import re

SOCKET_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{1,20}\.[0-9]{1,20}"
SIGNED_CHANNEL = r"(private|presence)-[A-Za-z0-9_=@,.;/-]{0,191}"


def may_join(user, channel):
    return channel == f"private-{user}" or channel == "presence-lobby"


def sign(key, secret, user, socket_id, channel, channel_data=None):
    # An unchecked socket_id or channel could make this the signature of another channel, or of an HTTP request.
    if not re.fullmatch(SOCKET_ID, socket_id) or not re.fullmatch(SIGNED_CHANNEL, channel) or not may_join(user, channel):
        raise PermissionError("refused")
    text = ":".join([socket_id, channel] + ([] if channel_data is None else [channel_data]))
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    answer = {"auth": f"{key}:{signature}"}
    return answer if channel_data is None else {**answer, "channel_data": channel_data}
