<?php
function sign(string $key, string $secret, string $socketId, string $channel, ?string $channelData = null): array
{
    if (!preg_match('/^([0-9a-f-]{36}|[0-9]{1,20}\.[0-9]{1,20})$/D', $socketId)) {
        throw new InvalidArgumentException('not a socket_id');
    }
    if (!preg_match('/^private-[A-Za-z0-9_\-=@,.;\/]*$/D', $channel)) {
        throw new InvalidArgumentException('not a private channel');
    }
    $data = $channelData === null ? [] : ['channel_data' => $channelData];
    $text = implode(':', [$socketId, $channel, ...array_values($data)]);
    return ['auth' => $key . ':' . hash_hmac('sha256', $text, $secret)] + $data;
}
