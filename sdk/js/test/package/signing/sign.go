package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
)

var (
	socketIDs = regexp.MustCompile(`^([0-9a-f-]{36}|[0-9]{1,20}\.[0-9]{1,20})$`)
	channels  = regexp.MustCompile(`^private-[A-Za-z0-9_\-=@,.;/]*$`)
)

// Sign answers with auth. channelData is nil where there is none; else it goes into the answer too, as channel_data.
func Sign(key, secret, socketID, channel string, channelData *string) (string, error) {
	if !socketIDs.MatchString(socketID) || !channels.MatchString(channel) {
		return "", errors.New("not a socket_id, or not a private channel")
	}
	text := socketID + ":" + channel
	if channelData != nil {
		text += ":" + *channelData
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return key + ":" + hex.EncodeToString(mac.Sum(nil)), nil
}
