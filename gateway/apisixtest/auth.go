package apisixtest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// tokenAge is the age from which lua-resty-etcd gets a new token; it adds up to a minute at random.
const tokenAge = 3 * time.Minute

// credentials are what the client authenticates with, and what it got for it.
type credentials struct {
	token  string
	issued time.Time
}

// authorization returns the token to send, or "" without a user. It is used until it is TokenAge old: that
// a server no longer knows it changes nothing.
func (c *Client) authorization(ctx context.Context) (string, error) {
	if c.User == "" {
		return "", nil
	}
	c.authenticating.Lock()
	defer c.authenticating.Unlock()
	age := c.TokenAge
	if age == 0 {
		age = tokenAge
	}
	if c.credentials.token != "" && time.Since(c.credentials.issued) < age {
		return c.credentials.token, nil
	}
	connection, err := c.dial(ctx)
	if err != nil {
		return "", err
	}
	defer c.hangUp(connection)
	body, err := json.Marshal(map[string]string{"name": c.User, "password": c.Password})
	if err != nil {
		return "", fmt.Errorf("authenticating: %w", err)
	}
	text, status, err := exchange(connection, "/v3/auth/authenticate", string(body))
	if err != nil {
		return "", err
	}
	token, err := tokenIn(text)
	if err != nil {
		return "", fmt.Errorf("authenticating: %d: %w", status, err)
	}
	c.credentials = credentials{token: token, issued: time.Now()}
	return token, nil
}

// tokenIn finds the token in an answer.
func tokenIn(body string) (string, error) {
	var answer struct {
		Error any    `json:"error"`
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return "", fmt.Errorf("body %.200q: %w", body, err)
	}
	if answer.Error != nil || answer.Token == "" {
		return "", fmt.Errorf("no token in %.200q", body)
	}
	return answer.Token, nil
}
