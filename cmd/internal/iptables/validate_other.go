//go:build !linux

package iptables

import (
	"context"
	"errors"
	"time"
)

// Validate is for Linux alone.
func Validate(context.Context, *Config, uint16, time.Duration) error {
	return errors.New("validation: there is no iptables on this system")
}
