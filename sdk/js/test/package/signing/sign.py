import hashlib
import hmac
import re


def sign(key, secret, socket_id, channel, channel_data=None):
    if not re.fullmatch(r"[0-9a-f-]{36}|[0-9]{1,20}\.[0-9]{1,20}", socket_id):
        raise ValueError("not a socket_id")
    if not re.fullmatch(r"private-[A-Za-z0-9_\-=@,.;/]*", channel):
        raise ValueError("not a private channel")
    text = ":".join([socket_id, channel] + ([] if channel_data is None else [channel_data]))
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    answer = {"auth": f"{key}:{signature}"}
    return answer if channel_data is None else {**answer, "channel_data": channel_data}
