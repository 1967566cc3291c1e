package xds

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"time"
)

// TokenExpiry returns when the bearer token in a file expires: the claim "exp" of a JSON Web Token (RFC 7519),
// which Kubernetes' are. The token is not verified. It is zero where the token does not say.
func TokenExpiry(file string) (time.Time, error) {
	token, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, fmt.Errorf("token: %w", err)
	}
	parts := bytes.Split(bytes.TrimSpace(token), []byte("."))
	if len(parts) != 3 {
		return time.Time{}, fmt.Errorf("token: %w", &os.PathError{Op: "read", Path: file, Err: errors.New("is no JSON Web Token")})
	}
	claims, err := base64.RawURLEncoding.DecodeString(string(parts[1]))
	if err != nil {
		return time.Time{}, fmt.Errorf("token: %w", &os.PathError{Op: "read", Path: file, Err: err})
	}
	var payload struct {
		Expiry *float64 `json:"exp"`
	}
	if err := json.Unmarshal(claims, &payload); err != nil {
		return time.Time{}, fmt.Errorf("token: %w", &os.PathError{Op: "read", Path: file, Err: err})
	}
	if payload.Expiry == nil || *payload.Expiry < 0 || *payload.Expiry > math.MaxInt32*1000 {
		return time.Time{}, nil
	}
	return time.UnixMilli(int64(*payload.Expiry * 1000)), nil
}
