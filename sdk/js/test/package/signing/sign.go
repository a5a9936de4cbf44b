package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
)

var (
	socketIDs      = regexp.MustCompile(`^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{1,20}\.[0-9]{1,20})$`)
	signedChannels = regexp.MustCompile(`^(private|presence)-[A-Za-z0-9_=@,.;/-]{0,191}$`)
	errRefused     = errors.New("refused")
)

func mayJoin(user, channel string) bool {
	return channel == "private-"+user || channel == "presence-lobby"
}

// Sign returns auth. channelData is nil where the subscribe has none; otherwise the answer carries it too, as channel_data.
func Sign(key, secret, user, socketID, channel string, channelData *string) (string, error) {
	// An unchecked socketID or channel could make this the signature of another channel, or of an HTTP request.
	if !socketIDs.MatchString(socketID) || !signedChannels.MatchString(channel) || !mayJoin(user, channel) {
		return "", errRefused
	}
	text := socketID + ":" + channel
	if channelData != nil {
		text += ":" + *channelData
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return key + ":" + hex.EncodeToString(mac.Sum(nil)), nil
}
