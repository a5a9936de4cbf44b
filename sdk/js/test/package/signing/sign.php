<?php
const SOCKET_ID = '/^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{1,20}\.[0-9]{1,20})$/D';
const SIGNED_CHANNEL = '/^(private|presence)-[A-Za-z0-9_=@,.;\/-]{0,191}$/D';

function mayJoin(string $user, string $channel): bool
{
    return $channel === "private-$user" || $channel === 'presence-lobby';
}

function sign(string $key, string $secret, string $user, string $socketId, string $channel, ?string $channelData = null): array
{
    // An unchecked socketId or channel could make this the signature of another channel, or of an HTTP request.
    if (!preg_match(SOCKET_ID, $socketId) || !preg_match(SIGNED_CHANNEL, $channel) || !mayJoin($user, $channel)) {
        throw new DomainException('refused');
    }
    $data = $channelData === null ? [] : ['channel_data' => $channelData];
    $text = implode(':', [$socketId, $channel, ...array_values($data)]);
    return ['auth' => $key . ':' . hash_hmac('sha256', $text, $secret)] + $data;
}
