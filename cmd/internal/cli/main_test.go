package cli

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	play(os.Getenv(role))
	goleak.VerifyTestMain(m)
}
